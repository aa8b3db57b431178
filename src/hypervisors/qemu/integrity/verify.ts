import type { Drift } from '../../../core/hypervisor/integrity.ts';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import type { Cgroups } from '../launch/cgroups.ts';
import type { Digests } from './digests.ts';
import { vmFacts } from './facts.ts';
import { type Facts, type Manifest, type Manifests, type Part, parts } from './manifest.ts';
import type { HostNetworking } from '../network/network.ts';
import type { HostLayout } from '../layout.ts';
import { errorMessage } from '../../../lib/error-message.ts';

/** Of a long list of differences the first ones tell enough. */
const mostNamed = 4;
const longestName = 300;
/** A monitor that is silent so often in turn has been silenced: load alone does not do that. */
const mostSilences = 3;

/**
 * Holds a running host against its manifest.
 * @returns what is not as it was made, the lines named; nothing, where all is.
 * @throws HypervisorError where its machine does not run, or could not be asked: what load alone does is no alteration.
 */
export async function verifyHost(
  place: HostLayout,
  tools: {
    cgroups: Cgroups;
    network: HostNetworking;
    manifests: Manifests;
    digests: Digests;
    /** How often in turn the monitor of each host was silent, by host. */
    silences: Map<string, number>;
  },
): Promise<readonly Drift[]> {
  const { cgroups, network, manifests, digests, silences } = tools;
  let silence: string | undefined;
  const machine = await vmFacts(place, cgroups, (cause) => {
    const times = (silences.get(place.id) ?? 0) + 1;
    silences.set(place.id, times);
    if (times < mostSilences) {
      throw new HypervisorError('The monitor does not answer, so the devices could not be checked', {
        cause,
      });
    }
    silence = `the monitor does not answer, in ${mostSilences} checks in turn or more`;
    return [];
  });
  if (silence === undefined) silences.delete(place.id);
  let manifest: Manifest | undefined;
  try {
    manifest = await manifests.read(place.manifest);
  } catch (error) {
    if (!(error instanceof HypervisorError)) throw error;
    return [{ part: 'manifest', detail: error.message }];
  }
  if (manifest?.hostId !== place.id) {
    return [{ part: 'manifest', detail: `${place.manifest} is ${manifest ? "another host's" : 'missing'}` }];
  }
  const { firewall, digests: made = [] } = manifest.facts;
  const living: Facts = {
    ...machine,
    digests: await Promise.all(made.map((line) => digestLine(line, digests))),
    // Before its network is opened a host has no rules on record.
    ...(firewall === undefined ? {} : await network.facts(place).catch(unreadable)),
  };
  const found = compare(manifest.facts, living);
  // That each device is missing would say less.
  return found.map((one) =>
    one.part === 'devices' && silence !== undefined ? { ...one, detail: silence } : one,
  );
}

/** What is not as it was made of a host's firewall rules; nothing, where it has none on record. */
export async function alteredRules(
  place: HostLayout,
  tools: { network: HostNetworking; manifests: Manifests },
): Promise<readonly Drift[]> {
  const { firewall, 'machine firewall': machine } = (await tools.manifests.read(place.manifest))?.facts ?? {};
  if (firewall === undefined || machine === undefined) return [];
  const living = await tools.network.facts(place).catch(unreadable);
  return compare({ firewall, 'machine firewall': machine }, living);
}

/** `DIGEST FILE`, as sha256sum(1) prints it. */
export const toDigestLine = (file: string, digest: string) => `${digest} ${file}`;

async function digestLine(line: string, digests: Digests): Promise<string> {
  const file = line.slice(line.indexOf(' ') + 1);
  return toDigestLine(file, await digests.of(file));
}

/** Rules that can't be listed are not the rules that were made: the namespace or the table has gone. */
function unreadable(error: unknown): Facts {
  const line = errorMessage(error);
  return { firewall: [line], 'machine firewall': [line] };
}

/** What differs, part by part. Parts that were never written down are not compared. */
export function compare(made: Facts, living: Facts): Drift[] {
  return parts.flatMap((part) => {
    const before = made[part];
    return before === undefined ? [] : differences(part, before, living[part] ?? []);
  });
}

function differences(part: Part, before: readonly string[], after: readonly string[]): Drift[] {
  const missing = without(before, after);
  const added = without(after, before);
  if (missing.length + added.length > 0) {
    const said = [
      ...missing.map((line) => `missing: ${line}`),
      ...added.map((line) => `not there before: ${line}`),
    ];
    const more = said.length > mostNamed ? `; and ${said.length - mostNamed} more` : '';
    const named = said.slice(0, mostNamed).map((line) => line.slice(0, longestName));
    return [{ part, detail: `${named.join('; ')}${more}` }];
  }
  // The first rule that matches decides.
  const moved = before.find((line, index) => line !== after[index]);
  return moved === undefined ? [] : [{ part, detail: `in another order: ${moved.slice(0, longestName)}` }];
}

/** The lines of one list that the other lacks; a line that is there twice is needed twice. */
function without(lines: readonly string[], others: readonly string[]): string[] {
  const left = new Map<string, number>();
  for (const line of others) left.set(line, (left.get(line) ?? 0) + 1);
  return lines.filter((line) => {
    const count = left.get(line) ?? 0;
    if (count > 0) left.set(line, count - 1);
    return count === 0;
  });
}
