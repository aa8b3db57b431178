import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { type ByteReader, createByteReader } from './byte-reader.ts';
import { addedMemory } from '../launch/arguments.ts';
import { emptyBase, type MemoryBase, pageBytes } from './memory-base.ts';

/** Id of the block that is the VM's main memory (launch/arguments.ts). */
const mainBlock = 'mem';
/** The end of the id of the block of memory that was added; the address of its device is before it. */
const addedBlockEnd = `/${addedMemory}`;

/** QEMU's migration stream: migration/savevm.c and migration/ram.c of versions 7.2 to 10. */
const magic = 0x5145564d;
const streamVersion = 3;
const ramVersion = 4;
const section = {
  start: 0x01,
  part: 0x02,
  end: 0x03,
  subsection: 0x05,
  configuration: 0x07,
  command: 0x08,
  footer: 0x7e,
};
const flag = { zero: 0x02, sizes: 0x04, page: 0x08, end: 0x10, continued: 0x20 };
const flagBits = 0xfffn;

/** A VM has about ten: memory, firmware, ROMs and tables. */
const mostBlocks = 64;
/** QEMU's names and lists are far shorter. */
const longestList = 4096;
const outputBytes = 1024 ** 2;

/**
 * Passes the stream in which a VM sends its memory and device state, without the pages of its main memory that are equal
 * to the base's, and without empty pages of memory that was added: a VM that has the base's memory before it loads the
 * result has the same memory afterwards. Another copy of
 * a page that was passed once is always passed. What the sender, which may be a compromised QEMU, sends differently from
 * QEMU's format is refused.
 * @param sizes of the main memory and of what can be added, in bytes.
 * @throws HypervisorError if the stream is not one of QEMU's, or not complete.
 */
export async function* difference(
  stream: AsyncIterable<Buffer>,
  base: MemoryBase,
  sizes: { readonly main: number; readonly added: number },
): AsyncGenerator<Buffer> {
  const input = createByteReader(stream);
  const output = createOutput();
  const copy = async (count: number): Promise<Buffer> => {
    const bytes = await input.bytes(count);
    output.write(bytes);
    return bytes;
  };
  /** Copies a text that is preceded by its length in one byte. */
  const copyText = async (): Promise<string> => {
    const length = (await copy(1)).readUInt8();
    return (await copy(length)).toString('latin1');
  };
  const copyU32 = async (): Promise<number> => (await copy(4)).readUInt32BE();

  if ((await copyU32()) !== magic || (await copyU32()) !== streamVersion) throw unknown('the beginning');
  let hasAddresses = false;
  let ram: RamSection | undefined;
  for (;;) {
    const type = (await copy(1)).readUInt8();
    switch (type) {
      case section.configuration:
        hasAddresses = await copyConfiguration(input, { copy, copyText, copyU32 });
        break;
      case section.command: {
        const [, length] = [await copy(2), (await copy(2)).readUInt16BE()];
        await copy(length);
        break;
      }
      case section.start: {
        const id = await copyU32();
        const name = await copyText();
        const [, version] = [await copyU32(), await copyU32()];
        if (name !== 'ram' || version !== ramVersion || ram !== undefined) {
          throw unknown(`a section "${printable(name)}" of version ${version}`);
        }
        ram = { id, blocks: new Map(), bases: new Map(), block: undefined };
        yield* copyRam(ram);
        break;
      }
      case section.part:
      case section.end:
        if (ram === undefined || (await copyU32()) !== ram.id) throw unknown('a section that has not begun');
        yield* copyRam(ram);
        break;
      default:
        throw unknown(`a section of type ${type}`);
    }
    // What follows is device state.
    if (type === section.end) break;
  }
  yield output.take();
  yield* input.rest();

  /** Copies the content and the end of a section of memory. */
  async function* copyRam(open: RamSection): AsyncGenerator<Buffer> {
    let written: string | undefined;
    for (;;) {
      if (output.length >= outputBytes) yield output.take();
      const header = await input.u64();
      const flags = Number(header & flagBits);
      const address = Number(header & ~flagBits);
      if (flags === flag.end && address === 0) break;
      if (flags === flag.sizes) {
        output.writeU64(header);
        await copyBlocks(open, address);
        continue;
      }
      const kind = flags & ~flag.continued;
      if (kind !== flag.page && kind !== flag.zero) throw unknown(`a page with flags ${flags}`);
      if ((flags & flag.continued) === 0) {
        open.block = (await input.bytes(await input.u8())).toString('latin1');
      }
      const block = open.block;
      const size = block === undefined ? undefined : open.blocks.get(block);
      if (block === undefined || size === undefined) throw unknown('a page of an unknown block');
      if (address >= size) throw unknown(`a page outside of the block ${printable(block)}`);
      const page = await input.bytes(kind === flag.page ? pageBytes : 1);
      if (kind === flag.zero && page[0] !== 0) throw unknown('a page filled with another byte than 0');
      const known = open.bases.get(block);
      if (known !== undefined) {
        const index = address / pageBytes;
        const isSuperfluous =
          known.passed[index] === 0 &&
          (await known.base.isEqual(address, kind === flag.page ? page : undefined));
        if (isSuperfluous) continue;
        known.passed[index] = 1;
      }
      // The page that named the block for this one may have been left out.
      if (block === written) output.writeU64(BigInt(address + kind + flag.continued));
      else {
        output.writeU64(BigInt(address + kind));
        output.write(Buffer.from([block.length]));
        output.write(Buffer.from(block, 'latin1'));
        written = block;
      }
      output.write(page);
    }
    output.writeU64(BigInt(flag.end));
    if ((await copy(1)).readUInt8() !== section.footer || (await copyU32()) !== open.id) {
      throw unknown('a section without an end');
    }
  }

  /** Copies the list of blocks: their names and sizes. */
  async function copyBlocks(open: RamSection, total: number): Promise<void> {
    if (open.blocks.size > 0) throw unknown('a second list of blocks');
    for (let listed = 0; listed < total;) {
      const name = await copyText();
      const size = Number((await copy(8)).readBigUInt64BE());
      if (hasAddresses) await copy(8);
      if (size === 0 || listed + size > total || open.blocks.size === mostBlocks || open.blocks.has(name)) {
        throw unknown('a list of blocks that is wrong');
      }
      open.blocks.set(name, size);
      const isAdded = name.endsWith(addedBlockEnd);
      const known = name === mainBlock ? base : isAdded ? emptyBase : undefined;
      if (known !== undefined) {
        if (size !== (isAdded ? sizes.added : sizes.main)) throw unknown(otherSize);
        open.bases.set(name, { base: known, passed: new Uint8Array(size / pageBytes) });
      }
      listed += size;
    }
    if (!open.blocks.has(mainBlock)) throw unknown(otherSize);
  }
}

interface RamSection {
  readonly id: number;
  /** Sizes in bytes. */
  readonly blocks: Map<string, number>;
  /** What the loading VM has before, by block; and by page: 1 if it was passed. */
  readonly bases: Map<string, { readonly base: MemoryBase; readonly passed: Uint8Array }>;
  /** The block of the last page. */
  block: string | undefined;
}

/** @returns whether the list of blocks contains their addresses. */
async function copyConfiguration(
  input: ByteReader,
  {
    copy,
    copyText,
    copyU32,
  }: {
    copy: (count: number) => Promise<Buffer>;
    copyText: () => Promise<string>;
    copyU32: () => Promise<number>;
  },
): Promise<boolean> {
  const copyList = async (what: string) => {
    const length = await copyU32();
    if (length > longestList) throw unknown(`${what} that is too long`);
    return length;
  };
  await copy(await copyList('a name of a VM type'));
  let hasAddresses = false;
  while ((await input.peek()) === section.subsection) {
    await copy(1);
    const name = await copyText();
    await copyU32();
    if (name !== 'configuration/capabilities') throw unknown(`a configuration "${printable(name)}"`);
    const count = await copyList('a list of capabilities');
    for (let index = 0; index < count; index += 1) {
      if ((await copyText()) === 'x-ignore-shared') hasAddresses = true;
    }
  }
  return hasAddresses;
}

/** Collects what is to be passed, in large pieces. */
function createOutput() {
  // A piece ends with the record that fills it.
  const longestRecord = 2 * longestList + pageBytes;
  let buffer = Buffer.allocUnsafe(outputBytes + longestRecord);
  let length = 0;
  return {
    get length() {
      return length;
    },
    write(bytes: Buffer) {
      if (length + bytes.length > buffer.length)
        buffer = Buffer.concat([buffer, Buffer.allocUnsafe(bytes.length)]);
      length += bytes.copy(buffer, length);
    },
    writeU64(value: bigint) {
      const bytes = Buffer.allocUnsafe(8);
      bytes.writeBigUInt64BE(value);
      this.write(bytes);
    },
    take(): Buffer {
      const taken = buffer.subarray(0, length);
      buffer = Buffer.allocUnsafe(outputBytes + longestRecord);
      length = 0;
      return taken;
    },
  };
}

const otherSize = "a memory of another size than the VM's";

/** Of a name that the sender has chosen, for a message. */
const printable = (name: string) => name.replaceAll(/[^\w./:-]/g, '?').slice(0, 60);

const unknown = (what: string) =>
  new HypervisorError(`QEMU sent its memory in a format that Berth does not know: ${what}`);
