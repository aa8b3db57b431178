import { rm } from 'node:fs/promises';
import path from 'node:path';
import { exists } from '../../lib/exists.ts';
import { writeFileAtomically } from '../../lib/write-file-atomically.ts';
import type { HostLayout } from './layout.ts';

/** A file that exists while the host is in quarantine; it survives a power cut. */
const markOf = (at: HostLayout) => path.join(at.directory, 'quarantined');

export const isQuarantined = (at: HostLayout): Promise<boolean> => exists(markOf(at));

export const markQuarantined = (at: HostLayout): Promise<void> => writeFileAtomically(markOf(at), '');

export const unmarkQuarantined = (at: HostLayout): Promise<void> => rm(markOf(at), { force: true });
