import { execFile } from 'node:child_process';
import { isDeepStrictEqual, promisify } from 'node:util';
import { until } from '../../lib/until.ts';
import { tryToConnect } from '../engine-client.ts';
import type { Disaster } from './disaster.ts';

const run = promisify(execFile);
/** A reload of the node's nftables service deletes the table; an operator may flush it, or only one chain. */
const acts = ['delete table', 'flush table', 'flush chain'] as const;

/** The installation's table on the node disappears, or its rules. The tables of others are left alone. */
export const firewallFlush: Disaster = {
  name: 'firewall-flush',
  impossible: ({ settings }) =>
    settings.hypervisor === 'qemu' ? undefined : 'simulated hosts have no firewall',
  async strike({ site, residents, random, patienceMs }) {
    const table = ['inet', `berth_${site.id}`];
    const rules = async () => rulesIn((await run('nft', ['--json', 'list', 'table', ...table])).stdout);
    const before = await rules();
    const [verb = '', object = ''] = random.pick(acts).split(' ');
    const chain = object === 'chain' ? [random.pick(chainsIn(before))] : [];
    await run('nft', [verb, object, ...table, ...chain]);
    await until('the rules are back', patienceMs, async () => isDeepStrictEqual(await rules(), before));
    for (const { id, credentials } of residents.all())
      await until(
        `${id} reaches its engine after the rules are back`,
        patienceMs,
        async () => (await tryToConnect(random.pick(site.gatewayPorts), credentials)) === 'accepted',
      );
    await residents.moveIn();
  },
};

type Listed = Readonly<Record<string, Readonly<Record<string, unknown>>>>;

/** Chains, rules and published ports, without what changes with traffic. */
function rulesIn(output: string): readonly Listed[] {
  const listing = JSON.parse(output) as { readonly nftables: readonly Listed[] };
  const text = JSON.stringify(
    listing.nftables.filter((one) => 'chain' in one || 'rule' in one || one['map']?.['name'] === 'ports'),
    (key, value: unknown) => (['handle', 'packets', 'bytes'].includes(key) ? undefined : value),
  );
  return JSON.parse(text) as readonly Listed[];
}

const chainsIn = (rules: readonly Listed[]) =>
  rules.flatMap(({ chain }) => (chain === undefined ? [] : [String(chain['name'])]));
