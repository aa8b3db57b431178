import { setTimeout as delay } from 'node:timers/promises';
import type { Platform } from '../../lib/platform.ts';
import { availableMib, vmPids, pssMib } from '../lib/proc.ts';
import { type Figure, figure } from '../lib/figures.ts';
import { median } from '../lib/statistics.ts';
import { create } from './creates.ts';

/** After this time a new host is idle; timers of its first minute have fired. */
const settleMs = 30_000;
/** Hosts of one template; PSS divides shared pages among them. */
const count = 10;

/** Memory of hosts that run idle, of the same ones paused, and of parked hosts. */
export async function memoryOfHosts(
  platform: Platform,
  site: string,
  progress: (line: string) => void,
): Promise<Figure[]> {
  progress('memory of hosts');
  // Parked hosts.
  const others = new Set(await vmPids(site));
  const before = await availableMib();
  const instances: string[] = [];
  for (let index = 0; index < count; index += 1) {
    instances.push((await create(platform, 'template')).instanceId);
  }
  await delay(settleMs);
  const after = await availableMib();
  const pids = (await vmPids(site)).filter((pid) => !others.has(pid));
  const running = await Promise.all(pids.map(pssMib));
  for (const { host, instance } of await platform.hosts()) {
    if (instance !== undefined && instances.includes(instance)) await platform.setPower(host, 'paused');
  }
  while ((await platform.hosts()).filter(({ power }) => power === 'paused').length < count) await delay(100);
  const paused = await Promise.all(pids.map(pssMib));
  const pooled = await Promise.all([...others].map(pssMib));
  for (const instanceId of instances) await platform.remove(instanceId);
  return [
    figure('host.running.pss_mib', median(running), 'MiB'),
    figure('host.running.mem_available_mib', (before - after) / count, 'MiB'),
    figure('host.running.hosts', running.length, 'count'),
    // It has run: a paused host keeps what it wrote until it is suspended.
    figure('host.paused.pss_mib', median(paused), 'MiB'),
    figure('host.pooled.pss_mib', median(pooled), 'MiB'),
  ];
}
