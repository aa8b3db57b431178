import { stat, statfs } from 'node:fs/promises';
import type { Halt, RunState } from '../../core/hypervisor/run-state.ts';
import type { QemuDeps } from './deps.ts';
import { withQmp } from './launch/qmp.ts';

const timeoutMs = 3_000;
const halts: readonly string[] = [
  'io-error',
  'internal-error',
  'guest-panicked',
  'paused',
] satisfies readonly Halt[];
/** stat(2) counts blocks of this size on every file system. */
const blockBytes = 512;

export function createRunState({ hosts, vms }: Pick<QemuDeps, 'hosts' | 'vms'>): RunState {
  async function bytesOf(hostId: string): Promise<number> {
    const { blocks } = await stat(hosts.layout(hostId, 0).disk).catch(() => ({ blocks: 0 }));
    return blocks * blockBytes;
  }

  return {
    async haltOf(hostId) {
      const record = await hosts.record(hostId);
      if (record === undefined || record.parked || record.power !== 'running') return undefined;
      if (!(await hosts.isAlive(hostId))) return undefined;
      const { qmpSocket } = hosts.layout(hostId, record.slot);
      const { status } = (await withQmp(qmpSocket, (qmp) => qmp.execute('query-status'), { timeoutMs })) as {
        status: string;
      };
      return halts.includes(status) ? (status as Halt) : undefined;
    },

    async halt(hostId) {
      const { slot } = await hosts.requireRecord(hostId);
      const at = hosts.layout(hostId, slot);
      await vms.requireAlive(at);
      await withQmp(at.qmpSocket, (qmp) => qmp.execute('stop'), { timeoutMs });
    },

    async diskSpace() {
      const [{ bavail, bsize }, ids] = await Promise.all([statfs(hosts.directory), hosts.ids()]);
      const sizes = await Promise.all(ids.map(async (id) => [id, await bytesOf(id)] as const));
      return { availableBytes: bavail * bsize, hostBytes: new Map(sizes) };
    },
  };
}
