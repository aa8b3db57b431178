import { readFile } from 'node:fs/promises';
import { writeFileAtomically } from '../../../lib/write-file-atomically.ts';
import type { PublishedBlock } from './firewall-facts.ts';

/** What this installation has applied among the node's rules, on record for all its workers: the reference for repairs. */
export interface NodeRecord {
  /** The objects of its table, and their handles, as nft listed them right after they were applied. */
  readonly lines: readonly string[];
  readonly handles: readonly string[];
  /** Port blocks that lead to hosts. Recorded before they are applied. */
  readonly published: readonly PublishedBlock[];
  /** Base chains of other programs, as lines. */
  readonly foreign: readonly string[];
}

/** Ends with the rules themselves, at a reboot of the node: the file is in /run, and not synced. */
export interface NodeRecordFile {
  /** @returns undefined if nothing has been applied. */
  read(): Promise<NodeRecord | undefined>;
  write(record: NodeRecord): Promise<void>;
}

export function createNodeRecordFile(file: string): NodeRecordFile {
  return {
    async read() {
      try {
        return JSON.parse(await readFile(file, 'utf8')) as NodeRecord;
      } catch (error) {
        // An unreadable one is made again from the rules that are in force, as after an upgrade.
        if (error instanceof SyntaxError || (error as NodeJS.ErrnoException).code === 'ENOENT')
          return undefined;
        throw error;
      }
    },
    write: (record) => writeFileAtomically(file, JSON.stringify(record), { durable: false }),
  };
}
