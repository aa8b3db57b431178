import { stat } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Credentials } from '../../../src/http/osb/credentials-body.ts';
import type { Platform } from '../../lib/platform.ts';
import { ping } from '../lib/engine-requests.ts';
import { availableMib, vmPids, pssMib } from '../lib/proc.ts';
import { type Figure, figure } from '../lib/figures.ts';
import { median, p95 } from '../lib/statistics.ts';
import { create } from './creates.ts';

/** After this time a new host is idle; timers of its first minute have fired. */
const settleMs = 30_000;
/** Hosts of one template; PSS divides shared pages among them. */
const count = 10;
/** How often each host is suspended and woken. */
const rounds = 4;
const sleepTimeoutMs = 300_000;
const pollMs = 100;

interface Tenant {
  readonly instanceId: string;
  readonly host: string;
  readonly credentials: Credentials;
}

/** Memory of hosts that run idle, of the same ones paused and suspended, and of parked hosts; how fast suspended ones wake. */
export async function memoryOfHosts(
  platform: Platform,
  broker: { readonly site: string; readonly stateDirectory: string },
  progress: (line: string) => void,
): Promise<Figure[]> {
  progress('memory of hosts');
  // Parked hosts.
  const others = new Set(await vmPids(broker.site));
  const ownPids = async () => (await vmPids(broker.site)).filter((pid) => !others.has(pid));
  const before = await availableMib();
  const tenants: Tenant[] = [];
  for (let index = 0; index < count; index += 1) {
    const { instanceId, credentials } = await create(platform, 'template');
    const host = (await platform.hosts()).find(({ instance }) => instance === instanceId)?.host ?? '';
    tenants.push({ instanceId, host, credentials });
  }
  await delay(settleMs);
  const after = await availableMib();
  const pids = await ownPids();
  const running = await Promise.all(pids.map(pssMib));
  for (const { host } of tenants) await platform.setPower(host, 'paused');
  const isPaused = async () =>
    (await platform.hosts()).filter(({ power }) => power === 'paused').length === count;
  await until('the hosts are paused', isPaused);
  const paused = await Promise.all(pids.map(pssMib));
  const pooled = await Promise.all([...others].map(pssMib));

  const suspendAll = async () => {
    for (const { host } of tenants) await platform.setPower(host, 'suspended');
    // Their power is recorded before they are suspended.
    await until('the hosts are suspended', async () => (await ownPids()).length === 0);
  };
  progress('suspending the hosts');
  await suspendAll();
  // A QEMU that has ended is still giving its memory back.
  await delay(settleMs);
  const suspended = await availableMib();
  const imageOf = async ({ host }: Tenant) =>
    (await stat(path.join(broker.stateDirectory, 'hosts', host, 'memory'))).size / 1024 ** 2;
  const images = await Promise.all(tenants.map(imageOf));
  const wakes: number[] = [];
  for (let round = 1; round <= rounds; round += 1) {
    progress(`waking the hosts: ${round} of ${rounds}`);
    for (const { credentials } of tenants) {
      const begun = performance.now();
      if (!(await ping(credentials))) throw new Error('a suspended host did not answer');
      wakes.push(performance.now() - begun);
    }
    if (round < rounds) await suspendAll();
  }
  for (const { instanceId } of tenants) await platform.remove(instanceId);
  return [
    figure('host.running.pss_mib', median(running), 'MiB'),
    figure('host.running.mem_available_mib', (before - after) / count, 'MiB'),
    figure('host.running.hosts', running.length, 'count'),
    // It has run: a paused host keeps what it wrote until it is suspended.
    figure('host.paused.pss_mib', median(paused), 'MiB'),
    // It has no process, so there is no PSS.
    figure('host.suspended.mem_available_mib', (before - suspended) / count, 'MiB'),
    figure('host.suspended.disk_mib', median(images), 'MiB'),
    figure('host.wake.p50_ms', median(wakes), 'ms'),
    figure('host.wake.p95_ms', p95(wakes), 'ms'),
    figure('host.wake.samples', wakes.length, 'count'),
    figure('host.pooled.pss_mib', median(pooled), 'MiB'),
  ];
}

async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + sleepTimeoutMs;
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new Error(`${what}: not within ${sleepTimeoutMs / 1000} s`);
    await delay(pollMs);
  }
}
