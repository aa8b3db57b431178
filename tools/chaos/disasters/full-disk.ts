import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { until } from '../../lib/until.ts';
import type { Disaster } from './disaster.ts';

const maxFullMs = 8_000;

/** The file system of the state directory and of Postgres has no space left for a while. */
export const fullDisk: Disaster = {
  name: 'full-disk',
  impossible: ({ disk }) =>
    disk === undefined ? 'no file system could be mounted, which needs root and loop devices' : undefined,
  async strike({ site, platform, residents, random, patienceMs }) {
    const { disk } = site;
    if (disk === undefined) return;
    const bound = random.pick(residents.all());
    const binding = await residents.bind(bound);
    const id = randomUUID();
    await disk.fill();
    const asked = Promise.all([platform.create(id), residents.unbind(bound, binding)]);
    asked.catch(() => undefined);
    try {
      await delay(random.integer(maxFullMs));
    } finally {
      await disk.free();
    }
    // Nobody else watches the drill's server, which ends if it can't write.
    await until('Postgres runs again', patienceMs, async () => {
      await site.postgres.ensureRunning();
      return true;
    });
    await asked;
    // The create may fail, but it ends, and can be deleted.
    await platform.settled(id);
    await platform.remove(id);
    const state = await platform.settled(id);
    if (!['succeeded', 'gone'].includes(state))
      throw new Error(`the delete of ${id}, created on a full disk, ended as ${state}`);
  },
};
