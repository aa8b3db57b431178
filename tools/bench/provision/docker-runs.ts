import { busyboxTree, dockerFor } from '../../lib/docker.ts';
import type { Platform } from '../../lib/platform.ts';
import { startNativeEngine } from './native-engine.ts';
import { type Figure, figure } from '../lib/figures.ts';
import { median } from '../lib/statistics.ts';
import { create } from './creates.ts';

const dockerRunsEach = 9;

/**
 * `docker run` of one image, alternately in a host and, for comparison, by Debian's engine on the node itself if
 * that runs here: the cost of a container with its own kernel compared with one on a shared kernel.
 */
export async function dockerRuns(
  platform: Platform,
  engineDirectory: string,
  progress: (line: string) => void,
): Promise<Figure[]> {
  progress('docker run, in a host and on the node itself');
  const native = await startNativeEngine(engineDirectory).catch((error: unknown) => {
    progress(`without Debian's engine on the node itself: ${String(error)}`);
    return undefined;
  });
  const { instanceId } = await create(platform, 'template');
  const docker = await dockerFor(await platform.bind(instanceId, 'docker', 'template'));
  const must = async (args: readonly string[], input?: Buffer) => {
    const { code, stderr } = await docker.run(args, input);
    if (code !== 0) throw new Error(`docker ${args[0] ?? ''} failed: ${stderr}`);
  };
  try {
    await must(['import', '-', 'bench:1'], await busyboxTree());
    const inHost: number[] = [];
    const onNode: number[] = [];
    // The first run of each loads programs into memory and is not counted.
    for (let count = 0; count <= dockerRunsEach; count += 1) {
      const begun = performance.now();
      await must(['run', '--rm', '--network', 'none', 'bench:1', '/bin/echo', 'hello']);
      if (count > 0) inHost.push(performance.now() - begun);
      const took = await native?.timedRun();
      if (count > 0 && took !== undefined) onNode.push(took);
    }
    return [
      figure('docker_run.host.p50_ms', median(inHost), 'ms'),
      ...(onNode.length === 0
        ? []
        : [
            figure('docker_run.native.p50_ms', median(onNode), 'ms'),
            figure('docker_run.host_over_native', median(inHost) / median(onNode), 'ratio'),
          ]),
      figure('docker_run.samples', inHost.length, 'each'),
    ];
  } finally {
    await docker.dispose();
    await native?.stop();
    await platform.remove(instanceId);
  }
}
