import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import type { Settings } from '../../src/config/settings.ts';
import { openHostFiles } from '../../src/hypervisors/simulated/host-files.ts';
import { readHostRecord } from '../../src/hypervisors/qemu/host-record.ts';

const hostsDirectory = ({ stateDirectory, hypervisor }: Settings) =>
  path.join(stateDirectory, ...(hypervisor === 'simulated' ? ['simulated', 'hosts'] : ['hosts']));

/** Ids of all hosts that exist. */
export async function hostsThatExist(settings: Settings): Promise<readonly string[]> {
  return (await readdir(hostsDirectory(settings)).catch(() => [])).sort();
}

/** The file of a host's own record, which its driver writes. */
export const recordFile = (settings: Settings, hostId: string) =>
  path.join(hostsDirectory(settings), hostId, 'host.json');

/** Whose a host is by its own record; undefined if it has no owner, or there is no such host. @throws Error if it is unreadable. */
export async function ownerOnRecord(settings: Settings, hostId: string): Promise<string | undefined> {
  if (settings.hypervisor === 'qemu') return (await readHostRecord(recordFile(settings, hostId)))?.owner;
  return (await openHostFiles(settings.stateDirectory).readHost(hostId))?.spec.owner;
}

export const readRecord = (settings: Settings, hostId: string) =>
  readFile(recordFile(settings, hostId), 'utf8');
