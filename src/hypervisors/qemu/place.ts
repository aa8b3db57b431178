import { rm } from 'node:fs/promises';
import path from 'node:path';
import type { QemuOptions } from './options.ts';

/** Where a machine is kept and what it is called: all of it follows from its id and its slot. */
export interface HostLayout {
  readonly id: string;
  readonly slot: number;
  /** Its disk and its record. */
  readonly directory: string;
  readonly disk: string;
  readonly record: string;
  readonly runDirectory: string;
  readonly qmpSocket: string;
  readonly agentSocket: string;
  /** What the machine that runs was made of (manifest.ts). */
  readonly manifest: string;
  /** The only folder that QEMU can see in its jail; no other host's user can enter it. */
  readonly exchangeDirectory: string;
  /** Where QEMU sends its device state while a template is made: it has to reach it by name. */
  readonly stateSocket: string;
  readonly uid: number;
  readonly netns: string;
  readonly netnsPath: string;
  /** The machine's end of the link to the namespace. */
  readonly veth: string;
  /** Address of the machine's end. */
  readonly machineAddress: string;
  /** Address of the namespace's end: the host's own address on this machine. */
  readonly hostAddress: string;
}

/** The slot in which templates are made, one at a time; hosts' slots begin with 1. */
export const templateSlot = 0;

/** The namespace's end of the link, and the guest's: each namespace has one of them. */
export const uplink = 'uplink';
export const tap = 'tap0';

type Naming = Pick<QemuOptions, 'site' | 'stateDirectory' | 'runDirectory' | 'hostNetwork' | 'firstUid'>;

/** Names of the machine's ends of all hosts' links begin with this (at most 15 characters; IFNAMSIZ). */
export const vethPrefix = (site: string) => `bh${site}s`;

export function layoutOf(options: Naming, id: string, slot: number): HostLayout {
  const { site, stateDirectory, hostNetwork, firstUid } = options;
  const directory = path.join(stateDirectory, 'hosts', id);
  const runDirectory = path.join(options.runDirectory, 'hosts', id);
  const exchangeDirectory = path.join(options.runDirectory, 'exchange', id);
  const netns = `berth-${site}-${slot}`;
  // A pair of addresses a slot (RFC 3021).
  const pair = firstAddress(hostNetwork) + 2 * slot;
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
    machineAddress: toAddress(pair),
    hostAddress: toAddress(pair + 1),
  };
}

/** How many hosts the network has addresses for. */
export function slotsIn(hostNetwork: string): number {
  return 2 ** (31 - Number(hostNetwork.split('/')[1])) - 1;
}

function firstAddress(network: string): number {
  const [address = '', length = ''] = network.split('/');
  const number = address.split('.').reduce((sum, octet) => sum * 256 + Number(octet), 0);
  const size = 2 ** (32 - Number(length));
  return number - (number % size);
}

function toAddress(number: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(number / 2 ** shift) % 256).join('.');
}

/** Removes what a machine has below /run. */
export async function removeRunFiles(place: HostLayout): Promise<void> {
  for (const directory of [place.runDirectory, place.exchangeDirectory]) {
    await rm(directory, { recursive: true, force: true });
  }
}
