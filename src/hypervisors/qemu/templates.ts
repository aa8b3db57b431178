import { setTimeout as delay } from 'node:timers/promises';
import { HostDisputedError } from '../../core/hypervisor/host-disputed-error.ts';
import { HypervisorError } from '../../core/hypervisor/hypervisor-error.ts';
import type { Templates } from '../../core/hypervisor/templates.ts';
import type { QemuDeps } from './deps.ts';
import { writeHostRecord } from './host-record.ts';
import type { GuestImage } from './image/guest-image.ts';
import { imageVersion } from './image/image-version.ts';
import { restoredSize } from './launch/started-size.ts';
import { hasRun } from './launch/vm-starter.ts';
import { makeTemplate, removeTemplateVm } from './template/make-template.ts';
import { warmRestoredGuest } from './warm-restored-guest.ts';

/** Name of a lock: templates are made one at a time on a node. */
const templateLock = 'template';
const pollMs = 1_000;
/**
 * How long templates of former images stay, in milliseconds: longer than any restore lasts (with-deadlines.ts), and than another
 * worker of the node needs to change to the current image.
 */
const formerStaysMs = 15 * 60_000;
/** How many bad templates are replaced: one that is bad again and again would keep the node busy. */
const mostRemakes = 3;

/** Removes the VM of a template whose worker was killed; one that another worker is making is left alone. */
export function removeUnfinishedTemplate(deps: QemuDeps): Promise<void> {
  return deps.locks.tryWithLock(templateLock, () => removeTemplateVm(deps));
}

export function createTemplates(deps: QemuDeps): Templates {
  const { image, hosts, cgroups, vms, starter, templates, locks, logger } = deps;
  /** When the current image became it, for this worker; by performance.now(). */
  let currentSince = performance.now();

  /** Undefined if the record of a host is unreadable: its disk may be based on any template. */
  async function templatesInUse(): Promise<ReadonlySet<string> | undefined> {
    try {
      const records = await Promise.all((await hosts.ids()).map((hostId) => hosts.record(hostId)));
      return new Set(records.map((record) => record?.template).filter((key) => key !== undefined));
    } catch (error) {
      if (error instanceof HostDisputedError) return undefined;
      throw error;
    }
  }

  /** Loads its template first, so that no create waits for that. */
  async function useNext(next: GuestImage): Promise<void> {
    if (deps.options.loadAhead && (await templates.load(templates.key(next))) === undefined) {
      throw new HypervisorError('The template of the new image could not be loaded; the log says why');
    }
    await image.replace(next);
    currentSince = performance.now();
    logger.info({ version: imageVersion(next.digest) }, 'New hosts get another guest image from now on');
  }

  async function removeUnused(): Promise<void> {
    const inUse = await templatesInUse();
    if (inUse !== undefined) await templates.removeOthers(inUse);
  }

  return {
    async hasTemplate(plan) {
      const key = image.find() === undefined ? undefined : templates.keyFor(plan);
      return key !== undefined && templates.has(key);
    },

    async makeTemplate(report, signal) {
      signal.throwIfAborted();
      const target = image.next() ?? image.require();
      const isMade = () => templates.isMade(templates.key(target));
      const wasMade = await isMade();
      const make = async () => {
        if (await isMade()) return;
        const bad = templates.badKeys(target);
        if (bad.length > mostRemakes) {
          const folders = bad.map((one) => templates.directory(one)).join(', ');
          throw new HypervisorError(
            `The template was bad each time it was made (${bad.length} times). The files "damaged" in ${folders} say why; remove these files to have it made again`,
          );
        }
        const key = templates.key(target);
        await makeTemplate(deps, { key, directory: templates.directory(key), image: target }, report, signal);
      };
      while (!(await isMade())) {
        await locks.tryWithLock(templateLock, make);
        if (await isMade()) break;
        report('waiting for another worker that makes a template');
        await delay(pollMs, undefined, { signal });
      }
      if (image.find() !== target) return useNext(target);
      const isSettled = performance.now() - currentSince > formerStaysMs;
      if (!wasMade || isSettled) await locks.tryWithLock(templateLock, removeUnused);
      if (isSettled) await templates.unloadOthers(formerStaysMs);
      if (!wasMade && deps.options.loadAhead) templates.preload();
    },

    async park(spec) {
      const at = hosts.layoutOfSpec(spec);
      const record = await hosts.requireRecord(spec.hostId);
      const key = templates.keyFor(spec);
      if (key === undefined) return false;
      const isParked = record.parked && record.template === key && (await templates.has(key));
      if (await hosts.isAlive(spec.hostId)) {
        if (isParked) return true;
        if (record.startedFrom !== undefined) return false;
        // A worker was killed while it parked this host.
        await cgroups.kill(spec.hostId);
      } else if (hasRun(record)) return false;
      const fresh = await starter.freshDisk(at, record);
      const template = fresh.template === key ? await templates.load(key) : undefined;
      if (template === undefined) return false;
      await starter.restore(at, fresh, template);
      const restored = { ...fresh, ...restoredSize(fresh.shape, deps.options.room) };
      await warmRestoredGuest(deps, at, spec, restored).catch(async (error: unknown) => {
        await templates.restoreFailed(key, error);
        throw error;
      });
      await vms.pause(at);
      await writeHostRecord(at.record, {
        ...restored,
        growing: undefined,
        startedFrom: 'pool',
        parked: true,
      });
      return true;
    },
  };
}
