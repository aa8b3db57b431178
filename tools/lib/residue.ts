import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

const execute = promisify(execFile);
const run = async (program: string, ...args: string[]) => (await execute(program, args)).stdout;

/** Hierarchies in which an installation has groups, on cgroup v2 and v1. */
const cgroupRoots = ['', 'memory', 'cpu', 'pids', 'systemd', 'unified'].map((name) =>
  path.join('/sys/fs/cgroup', name),
);

/** Lines of a tool's output that contain this text; empty if the tool fails. */
async function lines(text: string, program: string, ...args: string[]): Promise<string[]> {
  const output = await run(program, ...args).catch(() => '');
  return output
    .split('\n')
    .filter((line) => line.includes(text))
    .map((line) => `${program}: ${line.trim()}`);
}

/** Processes whose command line contains this text. */
export async function processesWith(text: string): Promise<{ pid: number; command: string }[]> {
  const found: { pid: number; command: string }[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) continue;
    const command = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '');
    if (command.includes(text)) found.push({ pid: Number(name), command: command.replaceAll('\0', ' ') });
  }
  return found;
}

/**
 * Descriptions of everything on this node that belongs to an installation's hosts, found without the driver: QEMU
 * processes, namespaces, links, cgroups, published ports. Empty if nothing is left.
 * @param site the installation's id.
 */
export async function residueOf(site: string): Promise<string[]> {
  const [processes, namespaces, links, groups, elements] = await Promise.all([
    processesWith(`berth-${site}-`),
    lines(`berth-${site}-`, 'ip', 'netns', 'list'),
    lines(`bh${site}s`, 'ip', '-brief', 'link', 'show'),
    groupsOf(site),
    lines('elements', 'nft', 'list', 'map', 'inet', `berth_${site}`, 'ports'),
  ]);
  return [
    ...processes.map(({ pid, command }) => `process ${pid}: ${command.slice(0, 120)}`),
    ...namespaces,
    ...links,
    ...groups,
    ...elements,
  ];
}

/** Whether a line of {@link residueOf} is about a template that is being made and not about a host. */
export function isAboutTemplate(line: string): boolean {
  return /berth-[0-9a-f]{4}-template\b|\bberth-[0-9a-f]{4}-0\b|\bbh[0-9a-f]{4}s0\b|\/template$/.test(line);
}

async function groupsOf(site: string): Promise<string[]> {
  const found = await Promise.all(
    cgroupRoots.map(async (root) => {
      const entries = await readdir(`${root}/berth-${site}`, { withFileTypes: true }).catch(() => []);
      return entries
        .filter((entry) => entry.isDirectory())
        .map((entry) => `cgroup ${root}/berth-${site}/${entry.name}`);
    }),
  );
  return found.flat();
}

/** Removes what an installation leaves on purpose: its empty nftables table, routing rules, cgroups and /run folder. */
export async function removeInstallationTraces(site: string): Promise<void> {
  await removeRoutingRules(site);
  await run('nft', 'delete', 'table', 'inet', `berth_${site}`).catch(() => '');
  for (const root of cgroupRoots) {
    await run('rmdir', `${root}/berth-${site}`).catch(() => '');
  }
  await run('rm', '-rf', `/run/berth-${site}`);
}

/** The table names the host network, to which the rules apply. */
async function removeRoutingRules(site: string): Promise<void> {
  const chain = await run('nft', 'list', 'chain', 'inet', `berth_${site}`, 'postrouting').catch(() => '');
  const [, network] = /ip saddr (\S+)/.exec(chain) ?? [];
  if (network === undefined) return;
  for (const rule of await lines(`to ${network} `, 'ip', 'rule', 'show')) {
    const [, priority = ''] = /(\d+):/.exec(rule) ?? [];
    await run('ip', 'rule', 'delete', 'priority', priority, 'to', network).catch(() => '');
  }
}
