import { writeFile } from 'node:fs/promises';
import { until } from '../../lib/until.ts';
import { hostsThatExist, readRecord, recordFile } from '../host-records.ts';
import type { Random } from '../random.ts';
import { expectDifference } from './differences.ts';
import type { Disaster } from './disaster.ts';

/** What a file looks like after a bad disk, a full one, or an editor. */
const damages: Readonly<Record<string, (text: string, random: Random, other: string) => string>> = {
  'is empty': () => '',
  'is cut off': (text, random) => text.slice(0, 1 + random.integer(text.length - 4)),
  'is garbage': (text, random) =>
    Array.from({ length: text.length }, () => String.fromCharCode(random.integer(256))).join(''),
  'is null': () => 'null',
  'is of another host': (_text, _random, other) => other,
};

/** All workers are killed, and find a host's own record damaged when they start again. */
export const corruptRecord: Disaster = {
  name: 'corrupt-record',
  async strike(scene) {
    const { site, residents, random, patienceMs } = scene;
    const victim = random.pick(residents.all());
    const [other] = residents.all().filter((one) => one !== victim);
    const damage = random.pick(Object.keys(damages));
    const workers = site.processes.filter(({ name }) => name.startsWith('worker'));
    await Promise.all(workers.map((worker) => worker.takeDown()));
    const file = recordFile(site.settings, victim.hostId);
    const good = await readRecord(site.settings, victim.hostId);
    const bad = damages[damage]?.(good, random, await readRecord(site.settings, other?.hostId ?? ''));
    await writeFile(file, bad ?? '');
    for (const worker of workers) worker.bringUp();
    await Promise.all(workers.map((worker) => worker.ready()));

    await expectDifference(scene, victim.hostId, 'unreadable');
    // Everybody else is served meanwhile, and nobody gets the host.
    await residents.moveIn();
    if (!(await hostsThatExist(site.settings)).includes(victim.hostId))
      throw new Error(`host ${victim.hostId}, whose record ${damage}, was destroyed`);
    if (random.chance(0.7)) {
      await writeFile(file, good);
      return;
    }
    await until('the operator may remove the host', patienceMs, async () => {
      if (!(await hostsThatExist(site.settings)).includes(victim.hostId)) return true;
      await scene.operator.askUntilAnswered('DELETE', `/mgmt/reconcile/${victim.hostId}`);
      return false;
    });
    await residents.moveOut(victim);
  },
};
