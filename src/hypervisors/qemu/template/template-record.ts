import { readFile } from 'node:fs/promises';
import path from 'node:path';

/** Content of `template.json`. */
export interface TemplateRecord {
  readonly key: string;
  readonly image: string;
  readonly madeAt: string;
  /** Physical addresses of kernel secrets that each restored guest gets new ones of; undefined in templates of former versions. */
  readonly kernelSecrets?: readonly number[];
  /** SHA-256 of each file; the three belong together. */
  readonly files: Readonly<Record<TemplateFile, string>>;
}

/** The memory of one template: another one with the same key may have other content. */
export interface TemplateMemory {
  readonly key: string;
  /** SHA-256. */
  readonly digest: string;
}

export type TemplateFile = 'memory' | 'device-state' | 'disk.qcow2';

export const templateFiles: readonly TemplateFile[] = ['memory', 'device-state', 'disk.qcow2'];

/** Reads the record of the template in this folder; undefined if there is none or it is unreadable. */
export async function readTemplateRecord(directory: string): Promise<TemplateRecord | undefined> {
  try {
    const record = JSON.parse(
      await readFile(path.join(directory, 'template.json'), 'utf8'),
    ) as TemplateRecord | null;
    return record ?? undefined;
  } catch {
    return undefined;
  }
}
