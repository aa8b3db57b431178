import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Credentials } from '../../src/http/osb/credentials-body.ts';
import { errorMessage } from '../../src/lib/error-message.ts';
import { until } from '../lib/until.ts';
import { createEngineClient, markerOf, tryToConnect } from './engine-client.ts';
import type { ChaosInstallation } from './installation.ts';
import { hostIdOf } from './operation-causes.ts';
import type { PatientPlatform } from './platform.ts';
import type { Random } from './random.ts';

export interface Binding {
  /** The platform's id of it. */
  bindingId: string;
  credentials: Credentials;
}

/** A tenant that stays while disasters strike, with the binding that it uses. */
export interface Resident extends Binding {
  /** The platform's id of its instance. */
  readonly id: string;
  readonly hostId: string;
}

/** Tenants that stay. Each leaves a marker in its host, a volume with its name, to which it must be led back. */
export interface Residents {
  readonly all: () => readonly Resident[];
  /** Creates an instance, and binds it. @throws Error if its host has a volume already, so that it was another's. */
  moveIn(): Promise<Resident>;
  /** Deletes the instance, in any state. */
  moveOut(resident: Resident): Promise<void>;
  /** Only forgets a resident, whose instance is gone. */
  forget(resident: Resident): void;
  bind(resident: Resident): Promise<Binding>;
  unbind(resident: Resident, binding: Binding): Promise<void>;
  /** From now on, its credentials must be refused. */
  neverAgain(binding: Binding): void;
  /** Makes this number of residents. */
  fill(count: number): Promise<void>;
  /** Descriptions of residents that don't find their own host, and of revoked bindings that are accepted. */
  violations(): Promise<readonly string[]>;
  /** Connects with revoked credentials again and again until stopped. @returns credentials that were accepted. */
  watchRevoked(): () => Promise<readonly string[]>;
}

const watchEveryMs = 100;

export function createResidents(
  site: ChaosInstallation,
  { platform, random, patienceMs }: { platform: PatientPlatform; random: Random; patienceMs: number },
): Residents {
  const residents: Resident[] = [];
  const revoked: Binding[] = [];
  const choose = () => random.pick(site.gatewayPorts);
  const engine = createEngineClient(choose, patienceMs);

  async function bind(id: string): Promise<Binding> {
    const bindingId = randomUUID();
    const { status, credentials } = await platform.bind(id, bindingId);
    if (credentials === undefined) throw new Error(`a bind of ${id} was answered ${status}`);
    return { bindingId, credentials };
  }

  const forget = (resident: Resident) => {
    residents.splice(residents.indexOf(resident), 1);
  };

  async function moveIn(): Promise<Resident> {
    const id = randomUUID();
    const { status } = await platform.create(id);
    const state = await platform.settled(id);
    if (state !== 'succeeded') throw new Error(`the create of ${id} was answered ${status} and ${state}`);
    const hostId = await hostIdOf(site, id);
    if (hostId === undefined) throw new Error(`instance ${id} has no host`);
    const resident = { id, hostId, ...(await bind(id)) };
    const found = await engine.volumes(resident.credentials);
    if (found.length > 0) throw new Error(`the new host ${hostId} of ${id} has volumes: ${found.join()}`);
    await engine.createVolume(resident.credentials, markerOf(id));
    residents.push(resident);
    return resident;
  }

  async function moveOut(resident: Resident): Promise<void> {
    forget(resident);
    await until(`instance ${resident.id} is deleted`, patienceMs, async () => {
      await platform.remove(resident.id);
      return ['succeeded', 'gone'].includes(await platform.settled(resident.id));
    });
    neverAgain(resident);
  }

  /** A copy, since a resident may be bound again. */
  const neverAgain = ({ bindingId, credentials }: Binding) => {
    revoked.push({ bindingId, credentials });
  };

  async function accepted(): Promise<string[]> {
    const found = await Promise.all(
      site.gatewayPorts.map(async (port) => {
        const wrong: string[] = [];
        for (const { bindingId, credentials } of [...revoked]) {
          if ((await tryToConnect(port, credentials)) === 'accepted')
            wrong.push(`the revoked binding ${bindingId} is accepted`);
        }
        return wrong;
      }),
    );
    return found.flat();
  }

  return {
    all: () => residents,
    moveIn,
    moveOut,
    forget,
    neverAgain,
    bind: ({ id }) => bind(id),
    async unbind({ id }, binding) {
      const { status } = await platform.unbind(id, binding.bindingId);
      if (![200, 410].includes(status)) throw new Error(`an unbind of ${id} was answered ${status}`);
      neverAgain(binding);
    },
    async fill(count) {
      while (residents.length > count) await moveOut(random.pick(residents));
      while (residents.length < count) await moveIn();
    },
    async violations() {
      const wrong = await Promise.all(
        residents.map(async ({ id, hostId, credentials }) => {
          try {
            const host = await hostIdOf(site, id);
            if (host !== hostId) return [`instance ${id} has lost its host ${hostId}; it has ${host}`];
            const found = await engine.volumes(credentials);
            return found.join() === markerOf(id)
              ? []
              : [`host ${hostId} of ${id} has volumes: ${found.join()}`];
          } catch (error) {
            return [`resident ${id}: ${errorMessage(error)}`];
          }
        }),
      );
      return [...wrong.flat(), ...(await accepted())];
    },
    watchRevoked() {
      const wrong = new Set<string>();
      let isOver = false as boolean;
      const watching = (async () => {
        while (!isOver) {
          for (const one of await accepted()) wrong.add(one);
          await delay(watchEveryMs);
        }
      })();
      return async () => {
        isOver = true;
        await watching;
        return [...wrong];
      };
    },
  };
}
