import limitConcurrency from 'p-limit';
import { memoryShortage } from '../core/admission.ts';
import type { AdmissionRules } from '../core/model/node-memory.ts';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { Logger } from '../lib/logger.ts';
import type { Host, HostPower, PowerRequest } from '../core/model/host.ts';
import type { Records } from '../core/ports/store.ts';
import type { PowerSwitch } from './power-switch.ts';
import { createTimedLimit } from '../operations/concurrency.ts';

/** More at once would only make each of them slower. A host whose guest hangs passes its turn on. Milliseconds. */
const atOnce = 8;
const longestTurnMs = 1_000;

/**
 * Does what gateways and operators have asked for, however often it is called: what is asked for while a host is
 * being seen to is looked at afterwards, by the one who is at it.
 */
export function createRequestServer(parts: {
  records: Records;
  hypervisor: Hypervisor;
  logger: Logger;
  power: PowerSwitch;
  admission: AdmissionRules;
}): () => Promise<void> {
  const { records, hypervisor, logger, power, admission } = parts;
  const turns = createTimedLimit(atOnce, longestTurnMs);
  const underWay = new Map<string, { again: boolean; over: Promise<void> }>();

  let running: Promise<unknown> = Promise.resolve();
  let next: Promise<readonly PowerRequest[]> | undefined;
  /** Who asks while they are being read waits, with all others who do, for one read after that. */
  function read(): Promise<readonly PowerRequest[]> {
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
  /** Why there is no memory for a host; where there is, it counts as taken until `wakingMib` is lowered again. */
  const takeRoom = ({ shape }: Host) =>
    oneByOne(async () => {
      const why = await memoryShortage(records, admission, { wokenMib: wakingMib + shape.memoryMib });
      if (why === undefined) wakingMib += shape.memoryMib;
      return why;
    });

  /** Only one whose memory is gone takes memory. It is told no, and not left waiting: nobody is ended for it. */
  async function wakeSuspended(host: Host): Promise<boolean> {
    const why = await takeRoom(host);
    if (why !== undefined) {
      logger.warn({ host: host.id, why }, 'A host is not woken: the machine is full');
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

  /** False where it must be looked at again. */
  async function meet(host: Host, wanted: HostPower): Promise<boolean> {
    if (wanted === 'running') return host.power === 'suspended' ? wakeSuspended(host) : power.wake(host);
    if (host.power !== wanted && host.power !== 'suspended') await power.putToSleep(host, wanted, never);
    return true;
  }

  async function serveHeld(hostId: string): Promise<void> {
    // As it is now: another worker may have met it, or somebody asked for something else meanwhile.
    const request = await records.powerRequest(hostId);
    if (request === undefined) return;
    const host = await records.livingHost(hostId);
    if (host !== undefined && (await records.unfinishedOperation(host.instanceId)) !== undefined) return;
    if (host?.state === 'running' && !host.quarantined && !(await meet(host, request.power))) return;
    await records.deletePowerRequest(request);
  }

  /** Nothing is held for a request that was met meanwhile, or that has to wait for an operation. */
  async function isDue(hostId: string): Promise<boolean> {
    if ((await records.powerRequest(hostId)) === undefined) return false;
    const host = await records.livingHost(hostId);
    return host === undefined || (await records.unfinishedOperation(host.instanceId)) === undefined;
  }

  async function serveOne(hostId: string): Promise<void> {
    try {
      if (await isDue(hostId)) await turns(() => hypervisor.withHostLock(hostId, () => serveHeld(hostId)));
    } catch (error) {
      logger.error(
        { host: hostId, err: error },
        'A host could not be woken or put to sleep; it is tried again',
      );
    }
  }

  function see(hostId: string): Promise<void> {
    const present = underWay.get(hostId);
    if (present !== undefined) {
      present.again = true;
      return present.over;
    }
    const course = { again: false, over: Promise.resolve() };
    const isAskedAgain = () => course.again;
    const run = async () => {
      do {
        course.again = false;
        await serveOne(hostId);
      } while (isAskedAgain());
      underWay.delete(hostId);
    };
    underWay.set(hostId, course);
    course.over = run();
    return course.over;
  }

  return async () => {
    const requests = await read();
    await Promise.all(requests.map(({ hostId }) => see(hostId)));
  };
}
