import { chmod, chown, mkdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { vethPrefix } from './names.ts';
import type { QemuOptions } from './options.ts';
import { formatAddress, networkRange } from '../../lib/ipv4.ts';

/** Paths, names, addresses and uid of a host on the node. All of it follows from the host's id and slot. */
export interface HostLayout {
  readonly id: string;
  readonly slot: number;
  /** Contains the host's disk and record. */
  readonly directory: string;
  readonly disk: string;
  readonly record: string;
  readonly runDirectory: string;
  readonly qmpSocket: string;
  readonly agentSocket: string;
  /** What the running VM was made of (integrity/manifest.ts). */
  readonly manifest: string;
  /** The only folder that QEMU sees in its jail; no other host's user can enter it. */
  readonly exchangeDirectory: string;
  /** Where QEMU sends its device state while a template is made: QEMU must be able to open it by path. */
  readonly stateSocket: string;
  readonly uid: number;
  readonly netns: string;
  readonly netnsPath: string;
  /** The node's end of the link to the host's namespace. */
  readonly veth: string;
  /** Address of the node's end of that link. */
  readonly nodeAddress: string;
  /** Address of the namespace's end: the host's own address on this node. */
  readonly hostAddress: string;
}

type Naming = Pick<QemuOptions, 'site' | 'stateDirectory' | 'runDirectory' | 'hostNetwork' | 'firstUid'>;

export function layoutOf(options: Naming, id: string, slot: number): HostLayout {
  const { site, stateDirectory, hostNetwork, firstUid } = options;
  const directory = path.join(stateDirectory, 'hosts', id);
  const runDirectory = path.join(options.runDirectory, 'hosts', id);
  const exchangeDirectory = path.join(options.runDirectory, 'exchange', id);
  const netns = `berth-${site}-${slot}`;
  // Two addresses per slot, a /31 (RFC 3021).
  const pair = networkRange(hostNetwork).first + 2 * slot;
  return {
    id,
    slot,
    directory,
    disk: path.join(directory, 'disk.qcow2'),
    record: path.join(directory, 'host.json'),
    runDirectory,
    qmpSocket: path.join(runDirectory, 'qmp.sock'),
    agentSocket: path.join(runDirectory, 'agent.sock'),
    manifest: path.join(runDirectory, 'manifest.json'),
    exchangeDirectory,
    stateSocket: path.join(exchangeDirectory, 'state.sock'),
    uid: firstUid + slot,
    netns,
    netnsPath: `/run/netns/${netns}`,
    veth: `${vethPrefix(site)}${slot}`,
    nodeAddress: formatAddress(pair),
    hostAddress: formatAddress(pair + 1),
  };
}

/** Makes the folder in which a VM's user may make sockets. */
export async function makeExchangeDirectory(at: HostLayout): Promise<void> {
  await mkdir(path.dirname(at.exchangeDirectory), { recursive: true, mode: 0o755 });
  await mkdir(at.exchangeDirectory, { recursive: true, mode: 0o700 });
  await chmod(at.exchangeDirectory, 0o700);
  await chown(at.exchangeDirectory, at.uid, at.uid);
}

/** Removes the files of a VM below /run. */
export async function removeRunFiles(at: HostLayout): Promise<void> {
  for (const directory of [at.runDirectory, at.exchangeDirectory]) {
    await rm(directory, { recursive: true, force: true });
  }
}
