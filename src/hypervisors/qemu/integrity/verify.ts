import type { Drift } from '../../../core/hypervisor/integrity.ts';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import type { Cgroups } from '../launch/cgroups.ts';
import { compare } from './compare.ts';
import type { Digests } from './digests.ts';
import { vmFacts } from './facts.ts';
import type { Facts, Manifest, Manifests } from './manifest.ts';
import type { HostNetworking } from '../network/network.ts';
import { expectedNetwork } from '../network/namespace-facts.ts';
import type { HostLayout } from '../layout.ts';
import { errorMessage } from '../../../lib/error-message.ts';

/** Consecutive checks without an answer after which the monitor counts as blocked; load alone is not the cause. */
const maxSilentChecks = 3;

/**
 * Compares a running host with its manifest.
 * @returns the drift, with the lines that differ; empty if there is none.
 * @throws HypervisorError if the VM does not run or did not answer, because that may be load and not drift.
 */
export async function verifyHost(
  layout: HostLayout,
  deps: {
    cgroups: Cgroups;
    network: HostNetworking;
    manifests: Manifests;
    digests: Digests;
    /** Consecutive checks in which a host's monitor did not answer, by host. */
    silentChecks: Map<string, number>;
  },
): Promise<readonly Drift[]> {
  const { cgroups, network, manifests, digests, silentChecks } = deps;
  let silent: string | undefined;
  const vm = await vmFacts(layout, cgroups, (cause) => {
    const times = (silentChecks.get(layout.id) ?? 0) + 1;
    silentChecks.set(layout.id, times);
    if (times < maxSilentChecks) {
      throw new HypervisorError('The monitor does not answer, so the devices could not be checked', {
        cause,
      });
    }
    silent = `the monitor does not answer, in at least ${maxSilentChecks} consecutive checks`;
    return [];
  });
  if (silent === undefined) silentChecks.delete(layout.id);
  let manifest: Manifest | undefined;
  try {
    manifest = await manifests.read(layout.manifest);
  } catch (error) {
    if (!(error instanceof HypervisorError)) throw error;
    return [{ part: 'manifest', detail: error.message }];
  }
  if (manifest?.hostId !== layout.id) {
    return [
      { part: 'manifest', detail: `${layout.manifest} is ${manifest ? 'that of another host' : 'missing'}` },
    ];
  }
  const { digests: made = [], ...recorded } = manifest.facts;
  const current: Facts = {
    ...vm,
    digests: await Promise.all(made.map((line) => digestLine(line, digests))),
  };
  const found = [
    ...compare({ ...recorded, ...noNetworkSections, digests: made }, current),
    ...(await networkDrift(layout, recorded, network)),
  ];
  // More useful than a list of every device as missing.
  return found.map((one) =>
    one.part === 'devices' && silent !== undefined ? { ...one, detail: silent } : one,
  );
}

/**
 * Drift of the rules in a host's namespace; empty if none are recorded.
 * @throws HypervisorError if the manifest is unreadable.
 */
export async function firewallDrift(
  layout: HostLayout,
  deps: { network: HostNetworking; manifests: Manifests },
): Promise<readonly Drift[]> {
  const recorded = (await deps.manifests.read(layout.manifest))?.facts;
  if (recorded?.firewall === undefined) return [];
  return ruleDrift(recorded, await deps.network.rules(layout).catch(unreadable));
}

function ruleDrift({ firewall, 'rule handles': handles }: Facts, found: Facts): readonly Drift[] {
  const drift = compare({ firewall }, found);
  // Different rules have different handles.
  return drift.length > 0 ? drift : compare({ 'rule handles': handles }, found);
}

async function networkDrift(
  layout: HostLayout,
  recorded: Facts,
  network: HostNetworking,
): Promise<readonly Drift[]> {
  // A host has no recorded rules before its network is opened.
  if (recorded.firewall === undefined) return [];
  const found = await network.facts(layout).catch(unreadable);
  // A manifest without handles is of a version that did not care for the rest of the network.
  const expected = recorded['rule handles'] === undefined ? undefined : expectedNetwork(layout);
  return [...ruleDrift(recorded, found), ...compare({ network: expected }, found)];
}

const noNetworkSections = { firewall: undefined, 'rule handles': undefined };

/** `DIGEST FILE`, as sha256sum(1) prints it. */
export const toDigestLine = (file: string, digest: string) => `${digest} ${file}`;

async function digestLine(line: string, digests: Digests): Promise<string> {
  const file = line.slice(line.indexOf(' ') + 1);
  return toDigestLine(file, await digests.of(file));
}

/** If the rules can't be listed, the namespace is missing, which is drift. */
function unreadable(error: unknown): Facts {
  const line = errorMessage(error);
  return { firewall: [line], network: [line] };
}
