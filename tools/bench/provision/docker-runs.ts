import { busyboxTree, dockerFor } from '../../lib/docker.ts';
import type { Platform } from '../../lib/platform.ts';
import { startNativeEngine } from './native-engine.ts';
import { type Figure, figure } from '../lib/figures.ts';
import { median } from '../lib/statistics.ts';
import { create } from './creates.ts';

const dockerRunsEach = 9;

/**
 * `docker run` of one image, by turns in a host and, for scale, by Debian's engine on the machine itself, where that
 * runs here: what a container costs a tenant beside what it costs who shares his kernel.
 */
export async function dockerRuns(
  platform: Platform,
  engineDirectory: string,
  progress: (line: string) => void,
): Promise<Figure[]> {
  progress('docker run, in a host and on the machine itself');
  const native = await startNativeEngine(engineDirectory).catch((error: unknown) => {
    progress(`without Debian's engine on the machine itself: ${String(error)}`);
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
    const onMachine: number[] = [];
    // The first of each brings programs into memory.
    for (let count = 0; count <= dockerRunsEach; count += 1) {
      const begun = performance.now();
      await must(['run', '--rm', '--network', 'none', 'bench:1', '/bin/echo', 'hello']);
      if (count > 0) inHost.push(performance.now() - begun);
      const took = await native?.timedRun();
      if (count > 0 && took !== undefined) onMachine.push(took);
    }
    return [
      figure('docker_run.host.p50_ms', median(inHost), 'ms'),
      ...(onMachine.length === 0
        ? []
        : [
            figure('docker_run.native.p50_ms', median(onMachine), 'ms'),
            figure('docker_run.host_over_native', median(inHost) / median(onMachine), 'ratio'),
          ]),
      figure('docker_run.samples', inHost.length, 'each'),
    ];
  } finally {
    await docker.dispose();
    await native?.stop();
    await platform.remove(instanceId);
  }
}
