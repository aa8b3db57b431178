import { mkdtemp, open, rm, writeFile, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { difference } from '../../../../src/hypervisors/qemu/memory/difference.ts';
import {
  emptyBase,
  type MemoryBase,
  templateBase,
} from '../../../../src/hypervisors/qemu/memory/memory-base.ts';
import { pagesOf } from './support/saved-stream.ts';

const pageBytes = 4096;
const memoryBytes = 2 * 1024 ** 2;
const sizes = { main: memoryBytes, added: 4 * 1024 ** 2 };
const ramId = 2;

const u8 = (value: number) => Buffer.from([value]);
const u16 = (value: number) => Buffer.from([value >> 8, value & 0xff]);
const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};
const u64 = (value: number) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
};
const text = (value: string) => Buffer.concat([u8(value.length), Buffer.from(value)]);
const page = (content: string) => Buffer.alloc(pageBytes, content);

const begin = Buffer.concat([Buffer.from('QEVM'), u32(3)]);
const configuration = Buffer.concat([
  ...[u8(0x07), u32(11), Buffer.from('pc-q35-7.2\n')],
  ...[u8(0x05), text('configuration/capabilities'), u32(1), u32(1), text('x-ignore-shared')],
]);
const blocks = { mem: memoryBytes, 'pc.bios': 8192 };
const blockList = (list: Record<string, number> = blocks) =>
  Buffer.concat([
    u64(Object.values(list).reduce((sum, size) => sum + size, 0) | 0x04),
    ...Object.entries(list).flatMap(([name, size]) => [text(name), u64(size), u64(0)]),
  ]);
const footer = Buffer.concat([u64(0x10), u8(0x7e), u32(ramId)]);
const start = (...content: Buffer[]) =>
  Buffer.concat([u8(0x01), u32(ramId), text('ram'), u32(0), u32(4), ...content, footer]);
const part = (...content: Buffer[]) => Buffer.concat([u8(0x02), u32(ramId), ...content, footer]);
const end = (...content: Buffer[]) => Buffer.concat([u8(0x03), u32(ramId), ...content, footer]);
/** @param block undefined: that of the page before. */
const record = (block: string | undefined, address: number, content: Buffer, flags = 0x08) =>
  Buffer.concat([
    u64(address | flags | (block === undefined ? 0x20 : 0)),
    block === undefined ? Buffer.alloc(0) : text(block),
    content,
  ]);
const zeros = (block: string | undefined, address: number) => record(block, address, u8(0), 0x02);
const deviceState = Buffer.from('\x04device state, of any format\0\x10\x7e');

/** The whole stream of a VM with these sections of memory. */
const streamOf = (...sections: Buffer[]) => Buffer.concat([begin, configuration, ...sections, deviceState]);
const usual = streamOf(
  start(blockList()),
  part(record('mem', 0, page('a')), record(undefined, 4096, page('b')), zeros(undefined, 8192)),
  end(record('pc.bios', 0, page('x')), zeros('mem', 12_288)),
);

/** @param chunkBytes size of the pieces in which the stream arrives. */
async function filter(stream: Buffer, base: MemoryBase = emptyBase, chunkBytes = 65_536): Promise<Buffer> {
  async function* chunks() {
    for (let at = 0; at < stream.length; at += chunkBytes) {
      await Promise.resolve();
      yield stream.subarray(at, at + chunkBytes);
    }
  }
  const pieces: Buffer[] = [];
  for await (const piece of difference(chunks(), base, sizes)) pieces.push(piece);
  return Buffer.concat(pieces);
}

describe('difference from empty memory', () => {
  it('difference: leaves out the zero pages of the main memory, and passes all else', async () => {
    expect(await filter(usual)).toEqual(
      streamOf(
        start(blockList()),
        part(record('mem', 0, page('a')), record(undefined, 4096, page('b'))),
        end(record('pc.bios', 0, page('x'))),
      ),
    );
  });

  it('difference: does not depend on the sizes of the chunks', async () => {
    const whole = await filter(usual);
    for (const size of [1, 7, 4095, 4096, 5000]) expect(await filter(usual, emptyBase, size)).toEqual(whole);
  });

  it('difference: passes the zero pages of other blocks', async () => {
    const stream = streamOf(start(blockList()), end(zeros('pc.bios', 4096)));
    expect(await filter(stream)).toEqual(stream);
  });

  it('difference: leaves out the zero pages of added memory', async () => {
    const added = '0000:00:05.0/added';
    const list = blockList({ ...blocks, [added]: sizes.added });
    expect(
      await filter(streamOf(start(list), end(zeros(added, 0), record(undefined, 4096, page('a'))))),
    ).toEqual(streamOf(start(list), end(record(added, 4096, page('a')))));
  });

  it('difference: refuses added memory of another size than the VM can have', async () => {
    const list = blockList({ ...blocks, '0000:00:05.0/added': 2 * sizes.added });
    await expect(filter(streamOf(start(list), end()))).rejects.toThrow(/memory of another size/);
  });

  it('difference: passes commands, and memory in several sections', async () => {
    const command = Buffer.concat([u8(0x08), u16(11), u16(3), Buffer.from('abc')]);
    const stream = streamOf(
      start(blockList()),
      part(record('mem', 0, page('a'))),
      command,
      part(record('mem', 4096, page('b'))),
      end(),
    );
    expect(await filter(stream)).toEqual(stream);
  });
});

describe('difference from a template', () => {
  let folder: string;
  let file: FileHandle;
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'berth-difference-'));
    const memory = Buffer.alloc(memoryBytes);
    memory.fill('a', 0, pageBytes);
    memory.fill('t', 1024 ** 2, 1024 ** 2 + pageBytes);
    await writeFile(path.join(folder, 'memory'), memory);
    file = await open(path.join(folder, 'memory'), 'r');
  });
  afterEach(async () => {
    await file.close();
    await rm(folder, { recursive: true });
  });

  const mib = 1024 ** 2;
  // Fails if zero pages are left out without a look at the template's, or the name of a block with the page that has it.
  it('difference: leaves out equal pages only, and names the block of the next one', async () => {
    const stream = streamOf(
      start(blockList()),
      end(
        record('mem', 0, page('a')),
        record(undefined, 4096, page('b')),
        zeros(undefined, 8192),
        zeros(undefined, mib),
        zeros(undefined, mib + 4096),
      ),
    );
    expect(await filter(stream, templateBase(file))).toEqual(
      streamOf(start(blockList()), end(record('mem', 4096, page('b')), zeros(undefined, mib))),
    );
  });

  it('difference: compares pages in any order', async () => {
    const stream = streamOf(
      start(blockList()),
      end(record('mem', mib, page('t')), record('mem', 0, page('t')), record('mem', mib + 4096, page('t'))),
    );
    const pages = pagesOf(await filter(stream, templateBase(file)));
    expect([...pages.keys()]).toEqual([0, mib + 4096]);
  });

  // Fails without the list of passed pages: the VM would load the first copy.
  it('difference: passes another copy of a page that was passed once', async () => {
    const stream = streamOf(
      start(blockList()),
      part(record('mem', 0, page('b')), record(undefined, 4096, page('c'))),
      end(record('mem', 0, page('a')), zeros(undefined, 4096)),
    );
    expect(await filter(stream, templateBase(file))).toEqual(stream);
  });

  it('difference: passes a changed page that was left out before', async () => {
    const stream = streamOf(
      start(blockList()),
      part(record('mem', 0, page('a'))),
      end(record('mem', 0, page('b'))),
    );
    expect(pagesOf(await filter(stream, templateBase(file))).get(0)).toEqual(page('b'));
  });

  it('difference: refuses a template that is smaller than the memory', async () => {
    await file.close();
    await writeFile(path.join(folder, 'memory'), Buffer.alloc(pageBytes));
    file = await open(path.join(folder, 'memory'), 'r');
    await expect(filter(usual, templateBase(file))).rejects.toThrow(/smaller than the VM/);
  });
});

describe('what is not a memory of QEMU', () => {
  it('difference: refuses a stream that ends before its device state, wherever it ends', async () => {
    const memory = usual.length - deviceState.length;
    for (let length = 0; length < memory; length += length < 200 || memory - length < 200 ? 1 : 997) {
      await expect(filter(usual.subarray(0, length)), String(length)).rejects.toThrow(
        'QEMU ended in the middle of its memory',
      );
    }
    expect(await filter(usual.subarray(0, memory))).toBeInstanceOf(Buffer);
  });

  const first = start(blockList());
  it.each<[what: string, stream: Buffer]>([
    ['text', Buffer.from('not a migration stream')],
    ['zeros', Buffer.alloc(100_000)],
    ['another version', Buffer.concat([Buffer.from('QEVM'), u32(4), usual.subarray(8)])],
    ['a long name of a VM type', Buffer.concat([begin, u8(0x07), u32(0xffffffff)])],
    ['an unknown configuration', Buffer.concat([begin, configuration, u8(0x05), text('other'), u32(1)])],
    [
      'a long list of capabilities',
      Buffer.concat([
        begin,
        u8(0x07),
        u32(0),
        u8(0x05),
        text('configuration/capabilities'),
        u32(1),
        u32(0xffffffff),
      ]),
    ],
    [
      'a section that is not memory',
      streamOf(Buffer.concat([u8(0x01), u32(1), text('disk'), u32(0), u32(1)])),
    ],
    ['device state before the memory', Buffer.concat([begin, configuration, deviceState, first, end()])],
    ['a section without a beginning', streamOf(part(record('mem', 0, page('a'))))],
    ['a second beginning', streamOf(first, start(blockList()), end())],
    ['a part of another section', streamOf(first, Buffer.concat([u8(0x02), u32(9)]))],
    ['a second list of blocks', streamOf(start(blockList(), blockList()), end())],
    ['another size of the memory', streamOf(start(blockList({ mem: 2 * memoryBytes })), end())],
    ['a list without the memory', streamOf(start(blockList({ 'pc.bios': 8192 })), end())],
    ['an empty block', streamOf(start(blockList({ empty: 0, mem: memoryBytes })), end())],
    [
      'too many blocks',
      streamOf(
        start(blockList(Object.fromEntries(Array.from({ length: 65 }, (_, at) => [`b${at}`, 4096])))),
        end(),
      ),
    ],
    [
      'blocks larger than their sum',
      streamOf(start(u64(4096 | 0x04), text('mem'), u64(memoryBytes), u64(0)), end()),
    ],
    ['a page before the list of blocks', streamOf(start(record('mem', 0, page('a'))), end())],
    ['a page of an unknown block', streamOf(first, end(record('other', 0, page('a'))))],
    ['a page without a block', streamOf(first, end(record(undefined, 0, page('a'))))],
    ['a page beyond the memory', streamOf(first, end(record('mem', memoryBytes, page('a'))))],
    ['a page beyond all addresses', streamOf(first, end(Buffer.alloc(8, 0xff)))],
    ['compressed pages', streamOf(first, end(record('mem', 0, page('a'), 0x40)))],
    ['a page of ones', streamOf(first, end(record('mem', 0, u8(1), 0x02)))],
    [
      'a section without an end',
      streamOf(first, Buffer.concat([u8(0x02), u32(ramId), u64(0x10), u8(0x7e), u32(9)])),
    ],
  ])('difference: refuses %s', async (_, stream) => {
    await expect(filter(stream)).rejects.toThrow(/in a format that Berth does not know: /);
  });

  // Fails if a name is copied into the message as it is.
  it('difference: shows no control characters of a name', async () => {
    const stream = streamOf(first, end(record('mem', 0, page('a'))), first).subarray(0, -1);
    const named = Buffer.concat([begin, u8(0x07), u32(0), u8(0x05), text('\x1b[2J\n'), u32(1), stream]);
    await expect(filter(named)).rejects.toThrow(/"\?\?2J\?"$/);
  });

  it('difference: random changes of a stream end it, or pass no more than was sent', async () => {
    for (let round = 0; round < 500; round += 1) {
      const changed = Buffer.from(usual);
      const at = (round * 7919) % changed.length;
      changed[at] = (changed[at] ?? 0) ^ (1 << (round % 8));
      const result = await filter(changed).catch((error: unknown) => error);
      if (Buffer.isBuffer(result)) expect(result.length).toBeLessThanOrEqual(usual.length);
      else expect(result).toHaveProperty('name', 'HypervisorError');
    }
  });
});
