import { describe, expect, it } from 'vitest';
import { createConcurrency } from '../../src/operations/concurrency.ts';
import type { Hypervisor } from '../../src/core/hypervisor/hypervisor.ts';
import type { Host } from '../../src/core/model/host.ts';
import type { Operation } from '../../src/core/model/operation.ts';
import { workflows } from '../../src/operations/workflows.ts';
import { eventually } from '../support/eventually.ts';

const never = () => new Promise<never>(() => undefined);

describe('concurrency', () => {
  // Fails without the timer in `createTurns`, and without a limit.
  it('concurrency: boots are limited, and a hanging boot loses its turn', async () => {
    const limits = createConcurrency({ bootMs: 200 });
    let begun = 0;
    for (let count = 0; count < 100; count += 1) {
      void limits.limitBoot('tenant', () => {
        begun += 1;
        return never();
      });
    }
    await eventually('some begin', () => begun > 0);
    const first = begun;
    expect(first).toBeLessThan(100);
    await eventually('the next begin', () => begun > first);
  });

  // Fails with one queue for all tenants: the boot waited for a hundred others.
  it('concurrency: a tenant with many hanging boots keeps no other tenant waiting', async () => {
    const limits = createConcurrency();
    for (let count = 0; count < 100; count += 1) void limits.limitBoot('greedy', never);
    expect(await limits.limitBoot('other', () => Promise.resolve('booted'))).toBe('booted');
    for (let count = 0; count < 100; count += 1) void limits.limitStep('greedy', never);
    expect(await limits.limitStep('other', () => Promise.resolve('done'))).toBe('done');
  });

  // Fails if a boot keeps its turn while its engine does not answer.
  it('concurrency: a boot whose guest has booted has no turn while it waits for its engine', async () => {
    const limits = createConcurrency({ engineStartMs: 20 });
    for (let count = 0; count < 100; count += 1) {
      void limits.limitBoot('tenant', (hasBooted) => {
        hasBooted();
        hasBooted();
        return never();
      });
    }
    expect(await limits.limitBoot('tenant', () => Promise.resolve('booted'))).toBe('booted');
  });

  it('concurrency: passes on results and errors', async () => {
    const limits = createConcurrency();
    expect(await limits.limitBoot('tenant', () => Promise.resolve(1))).toBe(1);
    expect(await limits.limitStep('tenant', () => Promise.resolve(2))).toBe(2);
    const no = () => Promise.reject(new Error('no'));
    await expect(limits.limitBoot('tenant', no)).rejects.toThrow('no');
    await expect(limits.limitStep('tenant', no)).rejects.toThrow('no');
  });

  // Fails if every update counts as a boot: one of ports or egress waited behind other tenants' boots.
  it('concurrency: an update counts as a boot only if the VM has to restart or has ended', async () => {
    const shape = { vcpus: 1, memoryMib: 768, diskGib: 4 };
    const host = { shape, imageVersion: '1.0.0', engine: { host: '127.0.0.1', port: 2375 } } as Host;
    const liveGrowth = { vcpus: true, memory: true, disk: false };
    const mayBoot = (of: Host, target: object) =>
      workflows.update.mayBoot?.(of, { capabilities: { liveGrowth } } as Hypervisor, { target } as Operation);
    expect(await mayBoot(host, { shape, publishedPorts: 4 })).toBe(false);
    expect(await mayBoot(host, { shape: { ...shape, vcpus: 2, memoryMib: 1024 } })).toBe(false);
    expect(await mayBoot(host, { shape: { ...shape, memoryMib: 512 } })).toBe(true);
    expect(await mayBoot(host, { shape: { ...shape, diskGib: 8 } })).toBe(true);
    expect(await mayBoot(host, { shape, imageVersion: '2.0.0' })).toBe(true);
    expect(await mayBoot({ ...host, engine: undefined }, { shape })).toBe(true);
  });
});
