import { siteId } from '../../../src/config/secrets.ts';
import { connectPlatform } from '../../lib/platform.ts';
import { startBroker } from '../lib/broker.ts';
import { type Figure, figure } from '../lib/figures.ts';
import { median, p95 } from '../lib/statistics.ts';
import { breakdown, create, type Sample, type Way, ways } from './creates.ts';
import { dockerRuns } from './docker-runs.ts';
import { memoryOfHosts } from './memory.ts';
import { createSustained, createTogether, poolIsFull, poolSize } from './pool.ts';
import { unbind } from './unbind.ts';

const shape = { vcpus: 1, memory_mib: 768, disk_gib: 4, published_ports: 10 };
const catalog = {
  pool: { size: poolSize, max_size: poolSize },
  offerings: [
    {
      id: 'bench',
      name: 'container-host',
      description: 'For the bench',
      plans: [
        { id: 'template', name: 'small', description: 'Restored', free: true, host: shape, idle: 'run' },
        {
          id: 'pool',
          name: 'small-pool',
          description: 'Restored ahead',
          free: true,
          // No create of the other plans of this size can claim them.
          host: { ...shape, disk_gib: shape.disk_gib + 1 },
          idle: 'run',
          pool: poolSize,
        },
        {
          id: 'grown',
          name: 'large',
          description: 'Restored ahead, and made larger',
          free: true,
          host: { vcpus: 4, memory_mib: 4096, disk_gib: 40, published_ports: 10 },
          idle: 'run',
        },
        {
          id: 'cold',
          name: 'small-cold',
          description: 'Booted',
          free: true,
          host: shape,
          template: 'never',
        },
      ],
    },
  ],
};

const unbindsPerRun = 4;
/** Creates without a cold boot are short: there are more of them, for the 95th percentile. */
const shortRunsPerRun = 4;

/** Cold boot, template and pool in one run; memory of hosts that run, are paused and are suspended; unbinds and deletes. */
export async function provisionSuite(
  options: { runs: number; sustained: boolean; cacheDirectory: string; engineDirectory: string },
  progress: (line: string) => void,
): Promise<readonly Figure[]> {
  const broker = await startBroker(catalog, options.cacheDirectory, progress, {
    // The default.
    BERTH_SYNC_WAIT_MS: '2500',
    // It deletes more hosts in five minutes than there are slots; the pool would shrink.
    BERTH_SLOT_REST_SECONDS: '0',
  });
  try {
    const platform = await connectPlatform(broker.settings);
    const samples: Record<Way, Sample[]> = { cold: [], template: [], pool: [], grown: [] };
    const watched: Record<Way, Sample[]> = { cold: [], template: [], pool: [], grown: [] };
    const cuts: number[] = [];
    const deletes: number[] = [];
    const remove = async (instanceId: string) => {
      const begun = performance.now();
      await platform.remove(instanceId);
      deletes.push(performance.now() - begun);
    };
    // The first restore loads the template into memory, once in a worker's life; it is not one of the samples.
    await platform.remove((await create(platform, 'template')).instanceId);
    for (let run = 1; run <= options.runs; run += 1) {
      for (const way of ways) {
        for (let count = 0; count < (way === 'cold' ? 1 : shortRunsPerRun); count += 1) {
          progress(`run ${run} of ${options.runs}: ${way}`);
          if (way === 'pool' || way === 'grown') await poolIsFull(platform);
          const { instanceId, sample } = await create(platform, way);
          samples[way].push(sample);
          if (way === 'template' && count === 0) {
            for (let each = 0; each < unbindsPerRun; each += 1) cuts.push(await unbind(platform, instanceId));
          }
          await remove(instanceId);
        }
        // Polling slows a create down, so the breakdown comes from separate creates.
        if (way === 'pool' || way === 'grown') await poolIsFull(platform);
        const { instanceId, sample } = await create(platform, way, 'watched');
        watched[way].push(sample);
        await remove(instanceId);
      }
    }
    await poolIsFull(platform);
    const together = await createTogether(platform, remove, progress);
    const sustained = options.sustained ? await createSustained(platform, remove, progress) : [];
    const runs = await dockerRuns(platform, options.engineDirectory, progress);
    const { stateDirectory } = broker.settings;
    await poolIsFull(platform);
    const memory = await memoryOfHosts(
      platform,
      { site: await siteId(broker.settings), stateDirectory },
      progress,
    );
    const time = (way: Way) => samples[way].map(({ createMs }) => createMs);
    return [
      ...ways.flatMap((way) => [
        figure(`create.${way}.p50_ms`, median(time(way)), 'ms'),
        figure(`create.${way}.p95_ms`, p95(time(way)), 'ms'),
        figure(`create.${way}.to_ping_p50_ms`, median(samples[way].map(({ pingMs }) => pingMs)), 'ms'),
        figure(`create.${way}.samples`, samples[way].length, 'count'),
        ...breakdown(way, watched[way]),
      ]),
      figure('create.cold_over_template', median(time('cold')) / median(time('template')), 'ratio'),
      figure('create.cold_over_pool', median(time('cold')) / median(time('pool')), 'ratio'),
      ...together,
      ...sustained,
      ...runs,
      ...memory,
      figure('delete.p50_ms', median(deletes), 'ms'),
      figure('delete.p95_ms', p95(deletes), 'ms'),
      figure('unbind.cut.p50_ms', median(cuts), 'ms'),
      figure('unbind.cut.p95_ms', p95(cuts), 'ms'),
      figure('unbind.samples', cuts.length, 'count'),
    ];
  } finally {
    await broker.stop();
  }
}
