import { enginePort } from '../../../core/hypervisor/network.ts';
import { canonicalNetwork } from '../../../lib/ipv4.ts';
import { runTool } from '../../run-tool.ts';

/**
 * Routing rules (ip-rule(8)) that keep everybody but root and the gateway's user from engines, which listen without TLS. The
 * firewall's output chain does the same; `nft flush ruleset` removes that chain, but not these.
 */
export interface EngineRoutes {
  /** The rules that are missing, in the notation of ip-rule(8). */
  missing(): Promise<readonly string[]>;
  add(rules: readonly string[]): Promise<void>;
}

/** Before the rules of other programs; after the table `local`, so that answers to the node always arrive. */
const allowed = 9;
const refused = 10;

interface ListedRule {
  readonly priority: number;
  readonly dst?: string;
  readonly dstlen?: number;
  readonly iif?: string;
  readonly uid_start?: number;
  readonly uid_end?: number;
  readonly ipproto?: number | string;
  readonly dport?: number;
  readonly table?: string;
  readonly action?: string;
}

export function createEngineRoutes(hostNetwork: string, gatewayUid: number): EngineRoutes {
  const network = canonicalNetwork(hostNetwork);
  const engines = `to ${network} ipproto tcp dport ${enginePort}`;
  const rules = [
    ...[0, gatewayUid].map((uid) => ({
      // `iif lo`: packets of this node's own processes.
      text: `priority ${allowed} ${engines} iif lo uidrange ${uid}-${uid} lookup main`,
      isThis: (rule: ListedRule) =>
        rule.priority === allowed && rule.iif === 'lo' && rule.uid_start === uid && rule.uid_end === uid,
    })),
    {
      text: `priority ${refused} ${engines} prohibit`,
      isThis: (rule: ListedRule) => rule.priority === refused && rule.action === 'prohibit',
    },
  ];
  return {
    async missing() {
      const listed = JSON.parse(await runTool('ip', ['-json', 'rule', 'show'])) as ListedRule[];
      const own = listed.filter(
        ({ dst, dstlen, dport }) => `${dst ?? ''}/${dstlen ?? 32}` === network && dport === enginePort,
      );
      return rules.filter(({ isThis }) => !own.some(isThis)).map(({ text }) => text);
    },

    async add(missing) {
      for (const text of missing) {
        // systemd-networkd removes rules that it does not know, except those of protocol kernel (networkd.conf(5)).
        await runTool('ip', ['rule', 'add', ...text.split(' '), 'protocol', 'kernel']);
      }
    },
  };
}
