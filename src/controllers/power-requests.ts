import limitConcurrency from 'p-limit';
import { memoryShortage } from '../core/memory-admission.ts';
import type { AdmissionRules } from '../core/model/node-memory.ts';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { Logger } from '../lib/logger.ts';
import type { Host, HostPower, PowerRequest } from '../core/model/host.ts';
import type { Records } from '../core/ports/store.ts';
import { TimeoutError, withTimeout } from '../lib/with-timeout.ts';
import { createBackoff } from './backoff.ts';
import type { PowerSwitch } from './power-switch.ts';
import { createTurns } from '../operations/concurrency.ts';

/** More at once would only make each of them slower. */
const concurrentHosts = 8;
/** After this time another host is started although this one, whose guest may hang, has not finished. Milliseconds. */
const longestTurnMs = 1_000;
/** A round continues without hosts whose requests take longer; these are processed further. Milliseconds. */
const roundMs = 30_000;
/**
 * A request that keeps failing is dropped if nobody has repeated it for this long, in milliseconds. A gateway repeats it
 * every 0.5 s while a client waits.
 */
const requestLifetimeMs = 60_000;

/** Fulfils the power requests of gateways and operators. */
export interface PowerRequestController {
  /** Calls may overlap: a request that arrives while its host is being processed is read again afterwards. */
  runOnce(): Promise<void>;
}

export function createPowerRequestController(deps: {
  records: Records;
  hypervisor: Hypervisor;
  logger: Logger;
  power: PowerSwitch;
  admission: AdmissionRules;
}): PowerRequestController {
  const { records, hypervisor, logger, power, admission } = deps;
  const limit = createTurns({ atOnce: concurrentHosts, perOwner: 1, longestMs: longestTurnMs });
  const backoff = createBackoff({
    message: 'A power request failed; retrying after a pause that grows to 5 min, while it is requested',
    logger,
  });
  const jobs = new Map<string, { again: boolean; done: Promise<void> }>();

  let running: Promise<unknown> = Promise.resolve();
  let next: Promise<readonly PowerRequest[]> | undefined;
  /** Calls that arrive during a read share the one after it. */
  function readRequests(): Promise<readonly PowerRequest[]> {
    next ??= running.then(() => {
      next = undefined;
      const requests = records.powerRequests();
      running = requests.catch(() => undefined);
      return requests;
    });
    return next;
  }

  const oneByOne = limitConcurrency(1);
  let wakingMib = 0;
  /** Returns why the node lacks memory for a host. If it fits, reserves the memory until `wakingMib` is lowered. */
  const reserveMemory = ({ shape }: Host) =>
    oneByOne(async () => {
      const shortage = await memoryShortage(records, admission, { wokenMib: wakingMib + shape.memoryMib });
      if (shortage === undefined) wakingMib += shape.memoryMib;
      return shortage;
    });

  /** Only suspended hosts need memory. Without enough the request is refused, not queued: no other host is evicted. */
  async function wakeSuspended(host: Host): Promise<boolean> {
    const reason = await reserveMemory(host);
    if (reason !== undefined) {
      logger.warn({ host: host.id, why: reason }, 'A wake was refused: the node lacks memory');
      await records.recordWakeRefusal(host.id);
      return true;
    }
    try {
      return await power.wake(host);
    } finally {
      wakingMib -= host.shape.memoryMib;
    }
  }

  const never = () => Promise.resolve(false);

  /** False if the request must be tried again later. */
  async function fulfil(host: Host, wanted: HostPower): Promise<boolean> {
    if (wanted === 'running') return host.power === 'suspended' ? wakeSuspended(host) : power.wake(host);
    if (host.power !== wanted && host.power !== 'suspended') await power.powerDown(host, wanted, never);
    return true;
  }

  async function processLocked(hostId: string): Promise<void> {
    // Read again under the lock: another worker may have fulfilled it, or it may have been replaced.
    const request = await records.powerRequest(hostId);
    if (request === undefined) return;
    const host = await records.livingHost(hostId);
    if (host !== undefined && (await records.unfinishedOperation(host.instanceId)) !== undefined) return;
    if (host?.state === 'running' && !host.quarantined && !(await fulfil(host, request.power))) return;
    await records.deletePowerRequest(request);
  }

  /** Avoids the lock for a request that has been fulfilled already or has to wait for an operation. */
  async function isDue(hostId: string): Promise<boolean> {
    if ((await records.powerRequest(hostId)) === undefined) return false;
    const host = await records.livingHost(hostId);
    return host === undefined || (await records.unfinishedOperation(host.instanceId)) === undefined;
  }

  /** Whether it keeps failing, and nobody waits for it any more. */
  const isAbandoned = ({ hostId, askedAt }: PowerRequest) =>
    backoff.hasFailed(hostId) && Date.now() - askedAt.getTime() > requestLifetimeMs;

  async function dropIfAbandoned(hostId: string): Promise<void> {
    const request = await records.powerRequest(hostId);
    if (request === undefined || !isAbandoned(request)) return;
    await records.deletePowerRequest(request);
    backoff.succeeded(hostId);
    logger.warn(
      { host: hostId, power: request.power },
      'A power request that keeps failing was dropped, because nobody has repeated it for a minute',
    );
  }

  async function process(hostId: string): Promise<void> {
    try {
      if (backoff.hasFailed(hostId)) await dropIfAbandoned(hostId);
      if (!backoff.isDue(hostId)) return;
      if (await isDue(hostId)) {
        await limit(hostId, () => hypervisor.withHostLock(hostId, () => processLocked(hostId)));
      }
      backoff.succeeded(hostId);
    } catch (error) {
      backoff.failed(hostId, error);
    }
  }

  /** At most one job per host. If there is one already, it processes the host once more. */
  function enqueue(hostId: string): Promise<void> {
    const present = jobs.get(hostId);
    if (present !== undefined) {
      present.again = true;
      return present.done;
    }
    const job = { again: false, done: Promise.resolve() };
    const isRequestedAgain = () => job.again;
    const drain = async () => {
      do {
        job.again = false;
        await process(hostId);
      } while (isRequestedAgain());
      jobs.delete(hostId);
    };
    jobs.set(hostId, job);
    job.done = drain();
    return job.done;
  }

  return {
    async runOnce() {
      const requests = await readRequests();
      const done = Promise.all(requests.map(({ hostId }) => enqueue(hostId)));
      await withTimeout(roundMs, 'a power request', done).catch((error: unknown) => {
        if (!(error instanceof TimeoutError)) throw error;
      });
    },
  };
}
