import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { EngineAddress } from '../../src/core/hypervisor/network.ts';
import type { HostSpec } from '../../src/core/hypervisor/host-spec.ts';
import type { Hypervisor } from '../../src/core/hypervisor/hypervisor.ts';
import { HypervisorError } from '../../src/core/hypervisor/hypervisor-error.ts';
import type { TemplateSpec } from '../../src/core/hypervisor/templates.ts';
import { eventually } from '../support/eventually.ts';

/** What the suite must be able to do with a driver's surroundings, beyond the port. */
export interface HypervisorHarness {
  /** A new driver object over the same state, not opened: what a restarted worker has. */
  createDriver(): Hypervisor | Promise<Hypervisor>;

  /** The plan whose template the suite makes, once, and whose hosts it then restores. */
  readonly plan: TemplateSpec;

  /** Spec of a host that no other test of this run has: hostId, slot and ports are new. The plan is the one above. */
  newSpec(): HostSpec;

  /**
   * Sends a request to an engine as the gateway would (same user, same namespace), within a deadline of its
   * own of a few seconds.
   * @returns status and body of whatever answered.
   * @throws where nothing answers there.
   */
  askEngine(address: EngineAddress, request: EngineRequest): Promise<{ status: number; body: string }>;

  /** Ends the host's machine as a crash or the OOM killer would, behind the driver's back. */
  killMachine(hostId: string): Promise<void>;

  /** States in which a worker that is killed in the middle of `prepare` or `destroy` can leave a host. */
  readonly halfMade: readonly { readonly name: string; leave(spec: HostSpec): Promise<void> }[];

  /** Whatever of a host exists on this machine, in words: processes, namespaces, rules, cgroups, files. Looked up without the driver. */
  residue(hostId: string): Promise<readonly string[]>;

  /** Removes everything that the harness has made. */
  close(): Promise<void>;
}

export interface EngineRequest {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  /** JSON. */
  readonly body?: string;
}

/** How long the suite waits for a driver's guests; the deadlines of its tests follow from it. */
export interface Patience {
  /** For a cold boot until the engine answers, in milliseconds. */
  readonly bootMs: number;
  /** For making the harness and the template, in milliseconds. */
  readonly templateMs: number;
}

/** The promises of the port (src/core/hypervisor/hypervisor.ts), which every driver keeps. */
export function describeHypervisor(
  name: string,
  patience: Patience,
  makeHarness: () => Promise<HypervisorHarness>,
): void {
  // Two guests one after the other at most, and as much again for everything else that a test does.
  const timeout = 6 * patience.bootMs + 60_000;

  describe(`the ${name} hypervisor`, { timeout }, () => {
    let harness: HypervisorHarness;
    let driver: Hypervisor;
    let specs: HostSpec[] = [];

    beforeAll(async () => {
      harness = await makeHarness();
      driver = await harness.createDriver();
      await driver.open();
      await driver.makeTemplate(harness.plan, () => undefined, AbortSignal.timeout(patience.templateMs));
    }, patience.templateMs);

    beforeEach(() => {
      specs = [];
    });

    afterEach(async () => {
      for (const { hostId } of specs) await driver.destroy(hostId);
    }, timeout);

    afterAll(async () => {
      await driver.close();
      await harness.close();
    }, timeout);

    const newSpec = (): HostSpec => {
      const spec = harness.newSpec();
      specs.push(spec);
      return spec;
    };

    const waitFor = (what: string, ask: () => Promise<boolean>) =>
      eventually(what, ask, { deadlineMs: patience.bootMs, everyMs: 50 });

    /** What an operation does with a host, step by step; the same that brings it back (core/operations). */
    const bringUp = async (spec: HostSpec): Promise<EngineAddress> => {
      await driver.prepare(spec);
      await driver.start(spec);
      await waitFor('the guest has its identity', () => driver.identify(spec));
      const address = await driver.connect(spec);
      await waitFor('the engine answers', () => driver.engineAnswers(spec));
      return address;
    };

    const stateOf = async ({ hostId }: HostSpec) =>
      (await driver.list()).find((host) => host.hostId === hostId)?.state;

    const identityOf = async (address: EngineAddress): Promise<{ ID: string; Name: string }> => {
      const { status, body } = await harness.askEngine(address, { method: 'GET', path: '/info' });
      expect(status).toBe(200);
      return JSON.parse(body) as { ID: string; Name: string };
    };

    const expectUnreachable = (address: EngineAddress) =>
      expect(harness.askEngine(address, { method: 'GET', path: '/_ping' })).rejects.toThrow();

    it('takes a host from nothing to an answering engine, through a stop and a start, and to nothing again', async () => {
      const spec = newSpec();
      expect(await stateOf(spec)).toBeUndefined();

      await driver.prepare(spec);
      expect(await stateOf(spec)).toBe('stopped');
      await driver.start(spec);
      expect(await stateOf(spec)).toBe('running');
      expect(await driver.startedFrom(spec.hostId)).toBe('template');
      const address = await bringUp(spec);
      const before = await identityOf(address);
      const volume = await harness.askEngine(address, {
        method: 'POST',
        path: '/volumes/create',
        body: JSON.stringify({ Name: 'kept' }),
      });
      expect(volume.status).toBe(201);

      await driver.stop(spec.hostId);
      expect(await stateOf(spec)).toBe('stopped');
      await expectUnreachable(address);

      await driver.start(spec);
      // A host that has run has a disk of its own, which no template knows.
      expect(await driver.startedFrom(spec.hostId)).toBe('boot');
      const again = await bringUp(spec);
      expect(await identityOf(again)).toMatchObject({ ID: before.ID, Name: before.Name });
      const volumes = await harness.askEngine(again, { method: 'GET', path: '/volumes' });
      expect(volumes.body).toContain('"kept"');

      await driver.destroy(spec.hostId);
      expect(await stateOf(spec)).toBeUndefined();
      await expectUnreachable(again);
      expect(await harness.residue(spec.hostId)).toEqual([]);
    });

    it('becomes what its new spec says while it is stopped, with its data, and only then', async () => {
      const spec = newSpec();
      await bringUp(spec);
      const address = await driver.connect(spec);
      await harness.askEngine(address, {
        method: 'POST',
        path: '/volumes/create',
        body: JSON.stringify({ Name: 'kept' }),
      });
      const { vcpus, memoryMib, diskGib } = spec.shape;
      const larger: HostSpec = {
        ...spec,
        shape: { vcpus: vcpus + 1, memoryMib: memoryMib + 256, diskGib: diskGib + 2 },
        publishedPorts: { ...spec.publishedPorts, count: spec.publishedPorts.count - 1 },
        imageVersion: driver.imageVersion,
      };
      await expect(driver.reshape(larger)).rejects.toThrow('it must be stopped first');
      await driver.stop(spec.hostId);
      // Twice, as after a kill in the middle.
      await driver.reshape(larger);
      await driver.reshape(larger);
      const again = await bringUp(larger);
      expect(await driver.imageVersionOf(spec.hostId)).toBe(driver.imageVersion);
      const { body } = await harness.askEngine(again, { method: 'GET', path: '/info' });
      const info = JSON.parse(body) as { NCPU: number; MemTotal: number };
      expect(info.NCPU).toBe(vcpus + 1);
      expect(info.MemTotal / 1024 ** 2).toBeGreaterThan(memoryMib);
      const volumes = await harness.askEngine(again, { method: 'GET', path: '/volumes' });
      expect(volumes.body).toContain('"kept"');
      expect(await driver.verify(spec.hostId)).toEqual([]);

      // And back, as an update does that has failed: the disk stays as large as it has become.
      await driver.stop(spec.hostId);
      await driver.reshape(spec);
      const back = await bringUp(spec);
      const former = await harness.askEngine(back, { method: 'GET', path: '/info' });
      expect(JSON.parse(former.body)).toMatchObject({ NCPU: vcpus });
      const kept = await harness.askEngine(back, { method: 'GET', path: '/volumes' });
      expect(kept.body).toContain('"kept"');
    });

    it('refuses an image that is not installed, and leaves the host as it was', async () => {
      const spec = newSpec();
      await driver.prepare(spec);
      const before = await driver.imageVersionOf(spec.hostId);
      await expect(driver.reshape({ ...spec, imageVersion: '9.9.9+none' })).rejects.toThrow('9.9.9+none');
      expect(await driver.imageVersionOf(spec.hostId)).toBe(before);
    });

    it('does nothing the second time', async () => {
      const spec = newSpec();
      await driver.prepare(spec);
      await driver.prepare(spec);
      await driver.start(spec);
      await driver.start(spec);
      await waitFor('the guest has its identity', () => driver.identify(spec));
      expect(await driver.identify(spec)).toBe(true);
      const address = await driver.connect(spec);
      expect(await driver.connect(spec)).toEqual(address);
      await waitFor('the engine answers', () => driver.engineAnswers(spec));
      const identity = await identityOf(address);

      // A resumed operation runs all of its steps again, on a host that is already there.
      expect(await bringUp(spec)).toEqual(address);
      expect(await identityOf(address)).toMatchObject({ ID: identity.ID, Name: identity.Name });
      expect(await driver.startedFrom(spec.hostId)).toBe('template');

      await driver.stop(spec.hostId);
      await driver.stop(spec.hostId);
      expect(await stateOf(spec)).toBe('stopped');
      await driver.prepare(spec);
      expect(await stateOf(spec)).toBe('stopped');
      await driver.destroy(spec.hostId);
      await driver.destroy(spec.hostId);
      expect(await harness.residue(spec.hostId)).toEqual([]);

      await driver.makeTemplate(harness.plan, () => undefined, AbortSignal.timeout(patience.templateMs));
      expect(await driver.hasTemplate(harness.plan.planName)).toBe(true);
    });

    it('holds a host ready before anybody has used it, and lets it go when it is started', async () => {
      const spec = newSpec();
      await expect(driver.park(spec)).rejects.toThrow(HypervisorError);
      await driver.prepare(spec);
      expect(await driver.park(spec)).toBe(true);
      expect(await driver.park(spec)).toBe(true);
      expect(await stateOf(spec)).toBe('paused');
      expect(await driver.identify(spec)).toBe(false);

      // Another worker finds it held.
      await driver.close();
      driver = await harness.createDriver();
      await driver.open();
      await driver.makeTemplate(harness.plan, () => undefined, AbortSignal.timeout(patience.templateMs));
      expect(await driver.park(spec)).toBe(true);

      const address = await bringUp(spec);
      await identityOf(address);
      expect(await driver.startedFrom(spec.hostId)).toBe('pool');
      // It has run, and is the pool's no more, whether it runs or not.
      expect(await driver.park(spec)).toBe(false);
      await driver.stop(spec.hostId);
      expect(await driver.park(spec)).toBe(false);
    });

    it('holds no host where there is no template, and restores one anew that has ended before it was let go', async () => {
      const without = { ...newSpec(), planName: 'without-template' };
      await driver.prepare(without);
      expect(await driver.park(without)).toBe(false);

      const ended = newSpec();
      await driver.prepare(ended);
      expect(await driver.park(ended)).toBe(true);
      await harness.killMachine(ended.hostId);
      await eventually('the host is seen as stopped', async () => (await stateOf(ended)) === 'stopped');
      expect(await driver.park(ended)).toBe(true);
      expect(await stateOf(ended)).toBe('paused');

      // Claimed, and its machine ends before it is let go: it is as new, and need not boot.
      await harness.killMachine(ended.hostId);
      await eventually('the host is seen as stopped', async () => (await stateOf(ended)) === 'stopped');
      await identityOf(await bringUp(ended));
      expect(await driver.startedFrom(ended.hostId)).toBe('template');
    });

    it('pauses a host, whose engine answers nobody until it is resumed, and which has lost nothing', async () => {
      const spec = newSpec();
      await expect(driver.pause(spec.hostId)).rejects.toThrow(HypervisorError);
      const address = await bringUp(spec);
      const before = await identityOf(address);
      await driver.pause(spec.hostId);
      await driver.pause(spec.hostId);
      expect(await stateOf(spec)).toBe('paused');
      expect(await driver.identify(spec)).toBe(false);
      await expectUnreachable(address);

      await driver.resume(spec);
      await driver.resume(spec);
      expect(await stateOf(spec)).toBe('running');
      await waitFor('the guest has its clock', () => driver.identify(spec));
      expect(await identityOf(address)).toMatchObject({ ID: before.ID, Name: before.Name });

      // An operation finds it paused, and brings it up with the same steps as any other.
      await driver.pause(spec.hostId);
      expect(await bringUp(spec)).toEqual(address);
      expect(await stateOf(spec)).toBe('running');
      await driver.pause(spec.hostId);
      await driver.stop(spec.hostId);
      expect(await stateOf(spec)).toBe('stopped');
      await expect(driver.resume(spec)).rejects.toThrow(HypervisorError);
    });

    it('suspends a host to disk and lets it go on from there, also after a restart of the worker', async () => {
      const spec = newSpec();
      const address = await bringUp(spec);
      const before = await identityOf(address);
      await driver.pause(spec.hostId);
      await driver.suspend(spec.hostId);
      await driver.suspend(spec.hostId);
      expect(await stateOf(spec)).toBe('suspended');
      expect(await driver.memoryUsage(spec.hostId)).toBeUndefined();
      await expectUnreachable(address);

      await driver.close();
      driver = await harness.createDriver();
      await driver.open();
      expect(await stateOf(spec)).toBe('suspended');
      // It goes on where it was: it does not boot.
      expect(await bringUp(spec)).toEqual(address);
      expect(await driver.startedFrom(spec.hostId)).toBe('template');
      expect(await identityOf(address)).toMatchObject({ ID: before.ID, Name: before.Name });

      await driver.suspend(spec.hostId);
      await driver.resume(spec);
      expect(await stateOf(spec)).toBe('running');
      await driver.suspend(spec.hostId);
      await driver.destroy(spec.hostId);
      expect(await harness.residue(spec.hostId)).toEqual([]);
    });

    it('counts what goes on at a host from outside, and the containers that run on it', async () => {
      const spec = newSpec();
      const address = await bringUp(spec);
      const traffic = async () => {
        const seen = (await driver.traffic([spec])).get(spec.hostId);
        if (seen === undefined) throw new Error('nothing is said of the host');
        return seen;
      };
      await eventually('nothing is open', async () => (await traffic()).connections === 0);
      const { packets } = await traffic();
      await identityOf(address);
      expect((await traffic()).packets).toBeGreaterThan(packets);
      expect(await driver.runningContainers(spec)).toBe(0);
    });

    it('takes a host that does not exist for stopped and destroyed', async () => {
      const { hostId } = newSpec();
      await driver.stop(hostId);
      await driver.destroy(hostId);
      expect(await driver.memoryUsage(hostId)).toBeUndefined();
      expect(await harness.residue(hostId)).toEqual([]);
    });

    it('refuses to start a host that was not prepared, and leaves nothing of it', async () => {
      const spec = newSpec();
      await expect(driver.start(spec)).rejects.toThrow(HypervisorError);
      expect(await stateOf(spec)).toBeUndefined();
      expect(await harness.residue(spec.hostId)).toEqual([]);
    });

    it('says of a host that was not started that no machine runs', async () => {
      const spec = newSpec();
      await driver.prepare(spec);
      await expect(driver.identify(spec)).rejects.toThrow(HypervisorError);
      await expect(driver.engineAnswers(spec)).rejects.toThrow(HypervisorError);
      expect(await driver.memoryUsage(spec.hostId)).toBeUndefined();
    });

    it('shows, completes and destroys what a killed worker left half made', async () => {
      expect(harness.halfMade).not.toHaveLength(0);
      for (const half of harness.halfMade) {
        const destroyed = newSpec();
        await half.leave(destroyed);
        expect(await stateOf(destroyed), half.name).toBe('stopped');
        await driver.destroy(destroyed.hostId);
        expect(await stateOf(destroyed), half.name).toBeUndefined();
        expect(await harness.residue(destroyed.hostId), half.name).toEqual([]);

        const completed = newSpec();
        await half.leave(completed);
        await identityOf(await bringUp(completed));
        await driver.destroy(completed.hostId);
        expect(await harness.residue(completed.hostId), half.name).toEqual([]);
      }
    });

    it('notices that a machine has ended, and boots it again from its own disk', async () => {
      const spec = newSpec();
      const address = await bringUp(spec);
      await harness.killMachine(spec.hostId);

      await eventually('the host is seen as stopped', async () => (await stateOf(spec)) === 'stopped');
      await expect(driver.engineAnswers(spec)).rejects.toThrow(HypervisorError);
      await expect(driver.identify(spec)).rejects.toThrow(HypervisorError);
      expect(await driver.memoryUsage(spec.hostId)).toBeUndefined();
      await expectUnreachable(address);

      await driver.prepare(spec);
      await driver.start(spec);
      expect(await stateOf(spec)).toBe('running');
      expect(await driver.startedFrom(spec.hostId)).toBe('boot');
    });

    it('destroys a host whose machine has ended', async () => {
      const spec = newSpec();
      await bringUp(spec);
      await harness.killMachine(spec.hostId);
      await driver.destroy(spec.hostId);
      expect(await stateOf(spec)).toBeUndefined();
      expect(await harness.residue(spec.hostId)).toEqual([]);
    });

    it('finds its hosts again after a restart of the worker', async () => {
      const running = newSpec();
      const unconnected = newSpec();
      const stopped = newSpec();
      const address = await bringUp(running);
      const identity = await identityOf(address);
      await driver.prepare(unconnected);
      await driver.start(unconnected);
      await driver.prepare(stopped);

      await driver.close();
      driver = await harness.createDriver();
      await driver.open();

      expect(await stateOf(running)).toBe('running');
      expect(await stateOf(unconnected)).toBe('running');
      expect(await stateOf(stopped)).toBe('stopped');
      expect(await driver.startedFrom(running.hostId)).toBe('template');
      expect(await driver.connect(running)).toEqual(address);
      expect(await driver.engineAnswers(running)).toBe(true);
      expect(await identityOf(address)).toMatchObject({ ID: identity.ID, Name: identity.Name });
      // The operation that was making this one goes on from its step.
      await identityOf(await bringUp(unconnected));

      for (const { hostId } of [running, unconnected, stopped]) {
        await driver.destroy(hostId);
        expect(await harness.residue(hostId)).toEqual([]);
      }
    });

    it('gives hosts made at the same time addresses and identities of their own', async () => {
      const both = [newSpec(), newSpec()];
      const addresses = await Promise.all(both.map(bringUp));
      const identities = await Promise.all(addresses.map(identityOf));

      const distinct = (values: readonly string[]) => {
        expect(new Set(values).size).toBe(values.length);
      };
      distinct(addresses.map(({ host, port }) => `${host}:${port}`));
      distinct(identities.map(({ ID }) => ID));
      distinct(identities.map(({ Name }) => Name));
      // The end of one is nothing to the other.
      const [gone, kept] = both;
      if (gone === undefined || kept === undefined) throw new Error('two hosts were made');
      await driver.destroy(gone.hostId);
      expect(await driver.engineAnswers(kept)).toBe(true);
      expect(await stateOf(kept)).toBe('running');
    });

    it('finds nothing altered in a host that was left alone', async () => {
      const spec = newSpec();
      await expect(driver.verify(spec.hostId)).rejects.toThrow(HypervisorError);
      await driver.prepare(spec);
      await driver.start(spec);
      expect(await driver.verify(spec.hostId)).toEqual([]);
      await bringUp(spec);
      expect(await driver.verify(spec.hostId)).toEqual([]);
      // Also by a worker that has not made it.
      await driver.close();
      driver = await harness.createDriver();
      await driver.open();
      await driver.connect(spec);
      expect(await driver.verify(spec.hostId)).toEqual([]);
    });

    it('cuts a host off until it is released, and leaves its machine running', async () => {
      const spec = newSpec();
      await bringUp(spec);
      await driver.quarantine(spec.hostId);
      await driver.quarantine(spec.hostId);
      expect(await driver.engineAnswers(spec)).toBe(false);
      await expect(driver.connect(spec)).rejects.toThrow(HypervisorError);
      expect(await stateOf(spec)).toBe('running');
      await driver.release(spec.hostId);
      await driver.release(spec.hostId);
      await driver.connect(spec);
      expect(await driver.engineAnswers(spec)).toBe(true);
      await driver.quarantine(spec.hostId);
      await driver.destroy(spec.hostId);
      await driver.quarantine(spec.hostId);
      await driver.release(spec.hostId);
      expect(await harness.residue(spec.hostId)).toEqual([]);
    });

    it('boots a host of a plan that has no template', async () => {
      const spec = { ...newSpec(), planName: 'without-template' };
      expect(await driver.hasTemplate(spec.planName)).toBe(false);
      await driver.prepare(spec);
      await driver.start(spec);
      expect(await driver.startedFrom(spec.hostId)).toBe('boot');
    });

    it('leaves no template where making it was called off', async () => {
      const plan = { ...harness.plan, planName: 'called-off' };
      const called = driver.makeTemplate(plan, () => undefined, AbortSignal.abort());
      await expect(called).rejects.toThrow();
      expect(await driver.hasTemplate(plan.planName)).toBe(false);
    });

    it('forgets nothing that still exists, and lists nothing that does not', async () => {
      const spec = newSpec();
      await driver.prepare(spec);
      const others = (await driver.list()).filter(({ hostId }) => hostId !== spec.hostId);
      expect(others).toEqual([]);
      expect(await harness.residue(spec.hostId)).not.toEqual([]);
      await driver.destroy(spec.hostId);
      expect(await driver.list()).toEqual([]);
      expect(await harness.residue(spec.hostId)).toEqual([]);
    });
  });
}
