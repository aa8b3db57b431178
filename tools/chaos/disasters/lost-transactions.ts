import { until } from '../../lib/until.ts';
import { hostsThatExist } from '../host-records.ts';
import type { ChaosPostgres } from '../postgres.ts';
import type { Resident } from '../residents.ts';
import type { ChaosInstallation } from '../installation.ts';
import { expectDifference } from './differences.ts';
import type { Disaster, Scene } from './disaster.ts';

/** The database is restored to an earlier moment, under a broker that runs. */
export const restoredDatabase: Disaster = {
  name: 'restored-database',
  strike: (scene) =>
    loseTransactions(
      scene,
      (postgres) => postgres.backUp(),
      async (postgres) => {
        await markAdvances(scene.site);
        await postgres.restoreBackup();
      },
    ),
};

/** The server fails, and a streaming replica is promoted that lacks the last transactions. */
export const failover: Disaster = {
  name: 'failover',
  strike: (scene) =>
    loseTransactions(
      scene,
      (postgres) => postgres.makeReplica(),
      (postgres) => postgres.failOver(),
    ),
};

async function loseTransactions(
  scene: Scene,
  remember: (postgres: ChaosPostgres) => Promise<void>,
  forget: (postgres: ChaosPostgres) => Promise<void>,
): Promise<void> {
  const { site, platform, residents, random } = scene;
  const { postgres } = site;
  const bound = random.pick(residents.all());
  const binding = await residents.bind(bound);
  await remember(postgres);
  // From here on the database forgets.
  await residents.unbind(bound, binding);
  const late = await residents.moveIn();
  const deleted = random.chance(0.5)
    ? random.pick(residents.all().filter((one) => one !== bound))
    : undefined;
  if (deleted !== undefined) await residents.moveOut(deleted);
  await forget(postgres);

  await residents.moveIn();
  if (deleted !== late) await decide(scene, late);
  // The platform knows that it has deleted it; the database does not.
  if (deleted !== undefined) {
    await platform.remove(deleted.id);
    await platform.settled(deleted.id);
  }
}

/** The operator decides about a host that the database has forgotten. */
async function decide({ residents, random, ...scene }: Scene, late: Resident): Promise<void> {
  const { site, operator, patienceMs } = scene;
  const { hostId } = late;
  await expectDifference({ residents, random, ...scene }, hostId, 'owned', 'disputed');
  residents.neverAgain(late);
  if (random.chance(0.7)) {
    const { status, body } = await operator.askUntilAnswered('POST', `/mgmt/reconcile/${hostId}/adopt`);
    if (status !== 200)
      throw new Error(`the adoption of ${hostId} was answered ${status}: ${JSON.stringify(body)}`);
    Object.assign(late, await residents.bind(late));
    return;
  }
  residents.forget(late);
  await until(`host ${hostId} is removed`, patienceMs, async () => {
    if (!(await hostsThatExist(site.settings)).includes(hostId)) return true;
    await operator.askUntilAnswered('DELETE', `/mgmt/reconcile/${hostId}`);
    return false;
  });
}

/** Transactions of the second between two marks show nowhere (docs/adr/0021-database-history.md). */
async function markAdvances(site: ChaosInstallation): Promise<void> {
  const mark = () => site.query((database) => database('installation').first<{ mark: string }>('mark'));
  const before = Number((await mark()).mark);
  await until('the mark advances', 60_000, async () => Number((await mark()).mark) > before + 1);
}
