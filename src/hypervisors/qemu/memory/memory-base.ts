import type { FileHandle } from 'node:fs/promises';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';

/** Bytes of a guest's page. */
export const pageBytes = 4096;

const windowBytes = 1024 ** 2;

/** The memory that a VM has before its saved memory is loaded into it: pages that are equal need not be saved. */
export interface MemoryBase {
  /**
   * Whether a page is equal to the base's.
   * @param address of the page in the memory.
   * @param page undefined: a page of zeros.
   */
  isEqual(address: number, page: Buffer | undefined): Promise<boolean>;
}

const zeroPage = Buffer.alloc(pageBytes);

/** Memory that nothing was written to. */
export const emptyBase: MemoryBase = {
  isEqual: (_, page) => Promise.resolve(page === undefined || page.equals(zeroPage)),
};

/** The memory of a template. It is read a part at a time, and only around the pages that are asked for. */
export function templateBase(memory: FileHandle): MemoryBase {
  const part = Buffer.allocUnsafe(windowBytes);
  let loaded = -1;

  async function load(from: number): Promise<void> {
    loaded = -1;
    const { bytesRead } = await memory.read(part, 0, windowBytes, from);
    // Less than a part would be left of the previous one.
    if (bytesRead !== windowBytes)
      throw new HypervisorError("The template's memory is smaller than the VM's");
    loaded = from;
  }

  return {
    async isEqual(address, page = zeroPage) {
      const from = address - (address % windowBytes);
      if (from !== loaded) await load(from);
      return page.compare(part, address - from, address - from + pageBytes) === 0;
    },
  };
}
