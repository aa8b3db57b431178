import { createHash } from 'node:crypto';
import type { HostShape } from '../../../core/hypervisor/host-spec.ts';
import type { GuestImage } from '../image/guest-image.ts';
import { memoryKeyOf, type NodeKey } from '../memory/memory-key.ts';
import type { VmSize } from '../options.ts';
import { templateShape, templateStart } from './template-shape.ts';

/** Raise this if templates are made differently: existing ones are then made again. */
const recipeVersion = 6;

/**
 * The key of an image's template: a digest of everything that it is made from, and of how many templates with the same
 * sources are bad; and the keys of those.
 */
export function templateKeys(
  { digest, commandLine }: Pick<GuestImage, 'digest' | 'commandLine'>,
  node: NodeKey,
  room: VmSize,
  isBad: (key: string) => boolean,
): { readonly key: string; readonly bad: readonly string[] } {
  const memory = memoryKeyOf(node, { start: templateStart, room });
  const sources = { recipeVersion, image: digest, commandLine, shape: templateShape, memory };
  const bad: string[] = [];
  for (;;) {
    const key = createHash('sha256')
      .update(JSON.stringify({ ...sources, ...(bad.length > 0 && { bad: bad.length }) }))
      .digest('hex');
    if (!isBad(key)) return { key, bad };
    bad.push(key);
  }
}

/** Whether a host of this shape can be restored: a template's is its smallest. */
export const fitsTemplate = ({ vcpus, memoryMib, diskGib }: HostShape): boolean =>
  vcpus >= templateShape.vcpus && memoryMib >= templateShape.memoryMib && diskGib >= templateShape.diskGib;
