import { randomUUID } from 'node:crypto';
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import limitConcurrency from 'p-limit';
import type { Credentials } from '../../../src/http/osb/credentials-body.ts';
import { busyboxTree, type Docker, dockerFor } from '../../lib/docker.ts';
import type { Platform } from '../../lib/platform.ts';
import { processesWith } from '../../lib/residue.ts';
import { cpuSeconds, vmPids, pssMib } from '../lib/proc.ts';
import { ping } from '../lib/engine-requests.ts';

export interface Tenant {
  readonly instanceId: string;
  /** Id of its host. */
  readonly host: string;
  readonly credentials: Credentials;
}

/** The hosts of one broker, and their measurements. */
export interface Fleet {
  /** Creates a running host. */
  add(planId: string): Promise<Tenant>;
  /** Pauses these hosts and waits until they are paused. */
  pause(tenants: readonly Tenant[]): Promise<void>;
  /** Suspends these hosts and waits until their VMs have ended. */
  suspend(tenants: readonly Tenant[]): Promise<void>;
  /** Size in MiB of the memory of each of these suspended hosts on disk. */
  imagesMib(tenants: readonly Tenant[]): Promise<readonly number[]>;
  /** Number of paused hosts. */
  paused(): Promise<number>;
  /** From opening a connection to the engine until its answer, in milliseconds; undefined if none came. */
  timedPing(tenant: Tenant): Promise<number | undefined>;
  /** Starts a container that does nothing; the image is imported if the host has none. */
  runContainer(tenant: Tenant): Promise<void>;
  /** How long a `docker run` that prints a word takes, in milliseconds. */
  timedRun(tenant: Tenant): Promise<number>;
  /** Proportional set size of all VMs together, in MiB. */
  pssOfAll(): Promise<number>;
  /** Memory of each VM in MiB, and the CPU time of all VMs together, in cores. */
  cost(): Promise<{ pss: readonly number[]; cpuShare: number }>;
  remove(tenant: Tenant): Promise<void>;
  /** Deletes the credentials that were stored for the docker CLI. */
  dispose(): Promise<void>;
}

const image = 'density:1';
/** A container that costs as little as one can. */
const sleeper = ['/bin/sleep', '1000000'];
/** Duration of a CPU time measurement, in milliseconds. */
const watchMs = 20_000;
const pauseTimeoutMs = 300_000;
/** All of their memory is read. */
const suspendTimeoutMs = 900_000;
const lookEveryMs = 100;
const pingTimeoutMs = 60_000;

export function createFleet(platform: Platform, site: string, stateDirectory: string): Fleet {
  const dockers = new Map<string, { docker: Promise<Docker>; imported: Promise<void> }>();

  /** The docker CLI for a host, with the image imported: one per host, even for concurrent callers. */
  async function dockerOf({ host, credentials }: Tenant): Promise<Docker> {
    let known = dockers.get(host);
    if (known === undefined) {
      const docker = dockerFor(credentials);
      const bring = async () => must(await docker, ['import', '-', image], await busyboxTree());
      known = { docker, imported: bring() };
      dockers.set(host, known);
    }
    await known.imported;
    return known.docker;
  }

  /** The VMs of these hosts that run or are paused. */
  async function processesOf(tenants: readonly Tenant[]) {
    const hosts = new Set(tenants.map(({ host }) => host));
    const processes = await processesWith(`berth-${site}-`);
    return processes.filter(({ command }) =>
      hosts.has(/berth-[0-9a-f]{4}-([0-9a-f-]{36})/.exec(command)?.[1] ?? ''),
    );
  }

  const hostOf = async (instanceId: string) =>
    (await platform.hosts()).find(({ instance }) => instance === instanceId)?.host ?? '';

  return {
    async add(planId) {
      const instanceId = `density-${randomUUID()}`;
      await platform.create(instanceId, 'bench', planId);
      const credentials = await platform.bind(instanceId, 'first', planId);
      return { instanceId, host: await hostOf(instanceId), credentials };
    },

    async pause(tenants) {
      const wanted = new Set(tenants.map(({ host }) => host));
      for (const host of wanted) await platform.setPower(host, 'paused');
      const until = performance.now() + pauseTimeoutMs;
      for (;;) {
        const awake = (await platform.hosts()).filter(
          ({ host, power }) => wanted.has(host) && power !== 'paused',
        );
        if (awake.length === 0) return;
        if (performance.now() > until)
          throw new Error(`${awake.length} hosts were not paused within ${pauseTimeoutMs / 1000} s`);
        await delay(lookEveryMs);
      }
    },

    async suspend(tenants) {
      for (const { host } of tenants) await platform.setPower(host, 'suspended');
      const until = performance.now() + suspendTimeoutMs;
      // Their power is recorded before they are suspended.
      for (;;) {
        const { length } = await processesOf(tenants);
        if (length === 0) return;
        if (performance.now() > until)
          throw new Error(`${length} hosts were not suspended within ${suspendTimeoutMs / 1000} s`);
        await delay(lookEveryMs);
      }
    },

    imagesMib: (tenants) =>
      Promise.all(
        tenants.map(
          async ({ host }) =>
            (await stat(path.join(stateDirectory, 'hosts', host, 'memory'))).size / 1024 ** 2,
        ),
      ),

    paused: async () => (await platform.hosts()).filter(({ power }) => power === 'paused').length,

    async timedPing({ credentials }) {
      const begun = performance.now();
      return (await ping(credentials, pingTimeoutMs)) ? performance.now() - begun : undefined;
    },

    async runContainer(tenant) {
      await must(await dockerOf(tenant), ['run', '-d', '--network', 'none', image, ...sleeper]);
    },

    async timedRun(tenant) {
      const docker = await dockerOf(tenant);
      const begun = performance.now();
      await must(docker, ['run', '--rm', '--network', 'none', image, '/bin/echo', 'hello']);
      return performance.now() - begun;
    },

    async pssOfAll() {
      const sizes = await Promise.all((await vmPids(site)).map(pssMib));
      return sizes.reduce((sum, size) => sum + size, 0);
    },

    async cost() {
      const pids = await vmPids(site);
      const used = async () => {
        const seconds = await Promise.all(pids.map(cpuSeconds));
        return seconds.reduce((sum, each) => sum + each, 0);
      };
      const [before, begun] = [await used(), performance.now()];
      await delay(watchMs);
      const cpuShare = ((await used()) - before) / ((performance.now() - begun) / 1000);
      return { pss: await Promise.all(pids.map(pssMib)), cpuShare };
    },

    async remove({ instanceId, host }) {
      await platform.remove(instanceId);
      await (await dockers.get(host)?.docker)?.dispose();
      dockers.delete(host);
    },

    async dispose() {
      for (const { docker } of dockers.values()) {
        await docker.then(
          (made) => made.dispose(),
          // Creation failed, so there is nothing to remove.
          () => undefined,
        );
      }
      dockers.clear();
    },
  };
}

/** Two at a time: the targets are for a node with two processors. */
export const twoAtATime = async <T>(
  items: readonly T[],
  act: (item: T, index: number) => Promise<void>,
): Promise<void> => {
  const limit = limitConcurrency(2);
  await Promise.all(items.map((item, index) => limit(() => act(item, index))));
};

async function must(docker: Docker, args: string[], input?: Buffer): Promise<void> {
  const { code, stderr } = await docker.run(args, input);
  if (code !== 0) throw new Error(`docker ${args[0] ?? ''} failed: ${stderr.trim()}`);
}
