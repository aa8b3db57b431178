import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { createCurrentImageRecord } from '../../src/postgres/current-image.ts';
import type { Credentials } from '../../src/http/osb/credentials-body.ts';
import { createApiClient } from './api-client.ts';
import { ids } from './catalog.ts';
import { createEngineClient, markerOf, tryToConnect } from './engine-client.ts';
import { hostIdOf, operationCauses } from './operation-causes.ts';
import type { Change, PatientPlatform } from './platform.ts';
import type { Random } from './random.ts';
import type { ChaosInstallation } from './installation.ts';

/** Everything that the life of an instance needs. */
export interface Life {
  readonly site: ChaosInstallation;
  readonly platform: PatientPlatform;
  readonly random: Random;
  readonly patienceMs: number;
  readonly reportViolation: (violation: string) => void;
  /** Counts a request. @throws Error if its answer has none of these statuses. */
  readonly expect: (what: string, status: number, allowed: readonly number[]) => void;
}

/** The life of one instance between create and delete, with retries and duplicate requests. */
export async function liveOneInstance(life: Life, id: string): Promise<void> {
  const { site, platform, random } = life;
  const state = await platform.settled(id);
  if (state !== 'succeeded') throw new Error(`the create of ${id} ended as ${state}`);
  let bindingId = randomUUID();
  let credentials = await bind(life, id, bindingId);
  await untilAccepted(life, credentials);
  const engine = createEngineClient(() => random.pick(site.gatewayPorts), life.patienceMs);
  const found = await engine.volumes(credentials);
  if (found.length > 0) throw new Error(`the new host of ${id} has volumes: ${found.join()}`);
  await engine.createVolume(credentials, markerOf(id));

  if (random.chance(0.5)) {
    await update(life, id);
    if (random.chance(0.7)) await platform.settled(id);
  }
  if (random.chance(0.2)) {
    await operationCauses.restart.cause(site, platform, id);
    life.expect('crash of a VM', 0, [0]);
  }
  if (random.chance(0.4)) {
    await requestSleep(life, id);
    // A connection wakes it.
    await untilAccepted(life, credentials);
  }
  if (random.chance(0.3)) {
    const successor = randomUUID();
    const next = await bind(life, id, successor, bindingId);
    await untilAccepted(life, next);
    // Both bindings are valid until the old one is unbound.
    await untilAccepted(life, credentials);
    await unbind(life, id, bindingId, credentials);
    [bindingId, credentials] = [successor, next];
  }
  // A crash may have cost the marker of a real host.
  const foreign = (await engine.volumes(credentials)).filter((name) => name !== markerOf(id));
  if (foreign.length > 0) throw new Error(`the host of ${id} has volumes of others: ${foreign.join()}`);
  if (random.chance(0.7)) await unbind(life, id, bindingId, credentials);
}

async function bind(
  { platform, random, expect }: Life,
  id: string,
  bindingId: string,
  predecessor?: string,
): Promise<Credentials> {
  const bound = await Promise.all(
    Array.from({ length: random.chance(0.3) ? 2 : 1 }, () => platform.bind(id, bindingId, predecessor)),
  );
  const what = predecessor === undefined ? 'bind' : 'rotation of a binding';
  for (const { status } of bound) expect(what, status, [200, 201]);
  const [first, second] = bound.map(({ credentials }) => credentials);
  if (first === undefined) throw new Error(`the binding of ${id} has no credentials`);
  if (second !== undefined && second.key !== first.key)
    throw new Error('a retried bind returned another key');
  return first;
}

async function unbind(
  { site, platform, random, expect }: Life,
  id: string,
  bindingId: string,
  credentials: Credentials,
): Promise<void> {
  const removed = await Promise.all(
    Array.from({ length: random.chance(0.3) ? 3 : 1 }, () => platform.unbind(id, bindingId)),
  );
  for (const { status } of removed) expect('unbind', status, [200, 410]);
  for (const port of site.gatewayPorts) {
    if ((await tryToConnect(port, credentials)) === 'accepted')
      throw new Error('a revoked certificate is accepted');
  }
}

/** A larger plan (memory, disk, ports), other parameters, or a newer image. */
async function update(life: Life, id: string): Promise<void> {
  const { platform, random, expect } = life;
  const dice = random.number(1);
  const parameters = {
    published_ports: random.integer(5),
    egress: random.pick(['internet', 'none', ['192.52.193.0/24']]),
    idle: random.pick(['run', 'pause', 'suspend', null]),
  };
  const [what, change]: [string, Change | undefined] =
    dice < 0.35
      ? ['update to a larger plan', { plan_id: ids.grown }]
      : dice < 0.8
        ? ['update of parameters', { parameters }]
        : ['upgrade to a newer image', await pretendOldImage(life, id)];
  if (change === undefined) return;
  const { status } = await platform.update(id, change);
  expect(what, status, [200, 202]);
}

/** Makes a simulated host look as if it had an older image; a real host can't. */
async function pretendOldImage({ site }: Life, id: string): Promise<Change | undefined> {
  const hostId = await hostIdOf(site, id);
  const version = await site.query((database) => createCurrentImageRecord(database).read());
  if (hostId === undefined || version === undefined || site.settings.hypervisor !== 'simulated')
    return undefined;
  await site.query((database) =>
    database('hosts').where({ id: hostId }).update({ image_version: '0.0.1+older' }),
  );
  return { maintenance_info: { version } };
}

/** Requests pause or suspension as an operator does; another operation may come first. */
async function requestSleep(life: Life, id: string): Promise<void> {
  const { site, random, expect } = life;
  const hostId = await hostIdOf(site, id);
  if (hostId === undefined) return;
  const operator = createApiClient(site.credentials.mgmt, {
    ...life,
    choose: () => random.pick(site.mgmtPorts),
  });
  const power = random.pick(['paused', 'suspended']);
  const { status } = await operator.askUntilAnswered('PUT', `/mgmt/hosts/${hostId}/power/${power}`);
  // 404: its VM does not run yet.
  expect(`power request ${power}`, status, [202, 404]);
  const deadline = performance.now() + random.integer(3_000);
  while (performance.now() < deadline) {
    const host = await site.query((database) =>
      database('hosts').where({ id: hostId }).first<{ power: string } | undefined>('power'),
    );
    if (host?.power === power) {
      expect(`host seen ${power}`, 0, [0]);
      return;
    }
    await delay(50);
  }
}

/** A live binding must be accepted eventually, whatever is killed. */
async function untilAccepted({ site, random, patienceMs }: Life, credentials: Credentials): Promise<void> {
  const deadline = performance.now() + patienceMs;
  while ((await tryToConnect(random.pick(site.gatewayPorts), credentials)) !== 'accepted') {
    if (performance.now() > deadline) throw new Error('a live binding was never accepted');
    await delay(200);
  }
}
