import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Credentials } from '../../src/http/osb/credentials-body.ts';
import { createAsker } from './asker.ts';
import { ids } from './catalog.ts';
import { knock } from './inspect.ts';
import { livingHostId, occasions } from './occasions.ts';
import type { Change, PatientPlatform } from './platform.ts';
import type { Random } from './random.ts';
import type { Site } from './site.ts';

/** What a tenant's life takes. */
export interface Life {
  readonly site: Site;
  readonly platform: PatientPlatform;
  readonly random: Random;
  readonly patienceMs: number;
  readonly complain: (violation: string) => void;
  /** Counts what was asked for. @throws Error where its answer has another status than one of these. */
  readonly expect: (what: string, status: number, allowed: readonly number[]) => void;
}

/** The life of one instance, from the end of its create to before its delete, with retries and duplicates. */
export async function live(life: Life, id: string): Promise<void> {
  const { site, platform, random } = life;
  const state = await platform.settled(id);
  if (state !== 'succeeded') throw new Error(`the create of ${id} ended as ${state}`);
  let bindingId = randomUUID();
  let credentials = await bind(life, id, bindingId);
  await untilAccepted(life, credentials);

  if (random.chance(0.5)) {
    await update(life, id);
    if (random.chance(0.7)) await platform.settled(id);
  }
  if (random.chance(0.2)) {
    await occasions.restart.bring(site, platform, id);
    life.expect('end of a machine', 0, [0]);
  }
  if (random.chance(0.4)) {
    await putToSleep(life, id);
    // Whoever connects wakes it.
    await untilAccepted(life, credentials);
  }
  if (random.chance(0.3)) {
    const successor = randomUUID();
    const next = await bind(life, id, successor, bindingId);
    await untilAccepted(life, next);
    // Both are valid until the former is unbound.
    await untilAccepted(life, credentials);
    await unbind(life, id, bindingId, credentials);
    [bindingId, credentials] = [successor, next];
  }
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
  if (second !== undefined && second.key !== first.key) throw new Error('a retried bind has another key');
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
    if ((await knock(port, credentials)) === 'accepted') throw new Error('a revoked certificate is accepted');
  }
}

/** Another plan, which takes more memory, a larger disk and more ports; other parameters; or a newer image. */
async function update(life: Life, id: string): Promise<void> {
  const { platform, random, expect } = life;
  const dice = random.number(1);
  const parameters = {
    published_ports: random.integer(5),
    egress: random.pick(['internet', 'none', ['203.0.113.0/24']]),
    idle: random.pick(['run', 'pause', 'suspend', null]),
  };
  const [what, change]: [string, Change | undefined] =
    dice < 0.35
      ? ['update to a larger plan', { plan_id: ids.grown }]
      : dice < 0.8
        ? ['update of parameters', { parameters }]
        : ['upgrade to a newer image', await age(life, id)];
  if (change === undefined) return;
  const { status } = await platform.update(id, change);
  expect(what, status, [200, 202]);
}

/** Lets a host look as if it had been made from an older image, which only a simulated one can be. */
async function age({ site }: Life, id: string): Promise<Change | undefined> {
  const hostId = await livingHostId(site, id);
  const worker = await site.insist((database) =>
    database('workers')
      .whereNotNull('image_version')
      .first<{ image_version: string } | undefined>('image_version'),
  );
  if (hostId === undefined || worker === undefined || site.settings.hypervisor !== 'simulated')
    return undefined;
  await site.insist((database) =>
    database('hosts').where({ id: hostId }).update({ image_version: '0.0.1+older' }),
  );
  return { maintenance_info: { version: worker.image_version } };
}

/** Asks for it as an operator does. What is under way then, on the host or in the worker, may be quicker. */
async function putToSleep(life: Life, id: string): Promise<void> {
  const { site, random, expect } = life;
  const hostId = await livingHostId(site, id);
  if (hostId === undefined) return;
  const operator = createAsker(site.credentials.mgmt, {
    ...life,
    choose: () => random.pick(site.mgmtPorts),
  });
  const power = random.pick(['paused', 'suspended']);
  const { status } = await operator.insist('PUT', `/mgmt/hosts/${hostId}/power/${power}`);
  // 404: its machine has not come up yet.
  expect(`request that a host be ${power}`, status, [202, 404]);
  const deadline = performance.now() + random.integer(3_000);
  while (performance.now() < deadline) {
    const host = await site.insist((database) =>
      database('hosts').where({ id: hostId }).first<{ power: string } | undefined>('power'),
    );
    if (host?.power === power) {
      expect(`host seen ${power}`, 0, [0]);
      return;
    }
    await delay(50);
  }
}

/** A live binding must be let through in the end, whatever is killed meanwhile. */
async function untilAccepted({ site, random, patienceMs }: Life, credentials: Credentials): Promise<void> {
  const deadline = performance.now() + patienceMs;
  while ((await knock(random.pick(site.gatewayPorts), credentials)) !== 'accepted') {
    if (performance.now() > deadline) throw new Error('a live binding is never let through');
    await delay(200);
  }
}
