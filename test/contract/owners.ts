import { randomUUID } from 'node:crypto';
import { expect, it } from 'vitest';
import { HostDisputedError } from '../../src/core/hypervisor/host-disputed-error.ts';
import type { HostSpec } from '../../src/core/hypervisor/host-spec.ts';
import type { Suite } from './suite.ts';

/** The host as the pool names it. */
export function unowned(spec: HostSpec): HostSpec {
  const { owner, ...rest } = spec;
  return owner === undefined ? spec : rest;
}

/** Whose a host is, by its own record: Postgres may have forgotten it. */
export function describeOwners(suite: Suite): void {
  const { newSpec, bringUp, identityOf, itNeeds } = suite;
  const observed = async ({ hostId }: HostSpec) =>
    (await suite.driver.list()).find((host) => host.hostId === hostId);

  /** Every act with a spec is refused in this name. */
  async function expectRefused(spec: HostSpec): Promise<void> {
    const { driver } = suite;
    const acts = [
      'prepare',
      'start',
      'resume',
      'identify',
      'configureRegistries',
      'reshape',
      'connect',
      'recordOwner',
      'destroy',
    ] as const;
    for (const act of acts) await expect(driver[act](spec)).rejects.toThrow(HostDisputedError);
  }

  // Fails without withOwners, and without the owner that `start` records.
  it('owner: every act in another name is refused, and the host stays as it is', async () => {
    const spec = newSpec();
    const address = await bringUp(spec);
    const before = await identityOf(address);
    const { hostId, slot, owner } = spec;
    expect(await observed(spec)).toEqual({
      hostId,
      slot,
      owner,
      parked: false,
      hasRun: true,
      state: 'running',
    });

    await suite.restartWorker();
    await expectRefused({ ...spec, owner: randomUUID() });
    await expectRefused(unowned(spec));
    await expectRefused({ ...spec, slot: slot + 50 });
    if (suite.driver.capabilities.park) {
      await expect(suite.driver.park(unowned(spec))).rejects.toThrow(HostDisputedError);
    }
    expect(await identityOf(address)).toMatchObject({ ID: before.ID, Name: before.Name });
    expect(await observed(spec)).toEqual({
      hostId,
      slot,
      owner,
      parked: false,
      hasRun: true,
      state: 'running',
    });
    await suite.driver.destroy(spec);
    expect(await suite.harness.residue(hostId)).toEqual([]);
  });

  itNeeds(['park'], 'owner: a parked host has none, and gets one before it runs', async () => {
    const spec = newSpec();
    const { driver } = suite;
    await driver.prepare(unowned(spec));
    expect(await driver.park(unowned(spec))).toBe(true);
    expect(await observed(spec)).toMatchObject({ owner: undefined, parked: true, state: 'paused' });
    await driver.start(spec);
    expect(await observed(spec)).toMatchObject({ owner: spec.owner, parked: false, state: 'running' });
    await expectRefused({ ...spec, owner: randomUUID() });
    await expect(driver.park(unowned(spec))).rejects.toThrow(HostDisputedError);
  });

  it('slot: a host is refused in the slot of another one, and nothing of it is made', async () => {
    const { driver } = suite;
    const first = newSpec();
    await driver.prepare(first);
    const second = { ...newSpec(), slot: first.slot };
    await expect(driver.prepare(second)).rejects.toThrow(HostDisputedError);
    expect(await observed(second)).toBeUndefined();
    expect(await suite.harness.residue(first.hostId)).not.toEqual([]);
    await driver.destroy(second);
    expect(await observed(first)).toMatchObject({ state: 'stopped', slot: first.slot });
  });

  it('unreadable record: concerns its host only, which is left alone and keeps its slot', async () => {
    const { driver, harness } = suite;
    const { hostId, slot, ...rest } = newSpec();
    const spec = { hostId, slot, ...rest };
    await driver.prepare(spec);
    for (const text of ['', '{"hostId":', '[]', '{"hostId":"0b7c1c5e-6a0f-4d5f-9a1c-3f6a2f0f8d11"}']) {
      await harness.writeRecord(spec, text);
      expect(await observed(spec), text).toMatchObject({ state: 'unreadable', slot, owner: undefined });
      await expectRefused(spec);
    }
    await suite.restartWorker();
    expect(await observed(spec)).toMatchObject({ state: 'unreadable', slot });
    await expect(suite.driver.prepare({ ...newSpec(), slot })).rejects.toThrow(HostDisputedError);
    const other = newSpec();
    await suite.driver.prepare(other);
    expect(await observed(other)).toMatchObject({ state: 'stopped' });

    // By its id, as an operator's decision.
    await suite.driver.destroy(hostId);
    expect(await harness.residue(hostId)).toEqual([]);
  });
}
