/**
 * Pages of one block in a stream that a VM was saved to, by address; undefined: zeros. Knows no broken streams.
 * @param end of the block's id.
 */
export function pagesOf(stream: Buffer, end = 'mem'): Map<number, Buffer | undefined> {
  const pages = new Map<number, Buffer | undefined>();
  let at = 8;
  const u8 = () => stream.readUInt8(at++);
  const u32 = () => stream.readUInt32BE((at += 4) - 4);
  const u64 = () => stream.readBigUInt64BE((at += 8) - 8);
  const text = (length: number) => stream.toString('latin1', at, (at += length));
  let hasAddresses = false;
  for (;;) {
    const type = u8();
    if (type === 0x07) {
      text(u32());
      while (stream[at] === 0x05) {
        u8();
        text(u8());
        u32();
        for (let left = u32(); left > 0; left -= 1) hasAddresses ||= text(u8()) === 'x-ignore-shared';
      }
      continue;
    }
    u32();
    if (type === 0x01) text(u8() + 8);
    let block = '';
    for (let header = u64(); header !== 0x10n; header = u64()) {
      const [address, flags] = [Number(header >> 12n) * 4096, Number(header & 0xfffn)];
      if (flags === 0x04) {
        for (let left = address; left > 0;) {
          text(u8());
          left -= Number(u64());
          if (hasAddresses) u64();
        }
        continue;
      }
      if ((flags & 0x20) === 0) block = text(u8());
      const isZero = (flags & 0x02) !== 0;
      const page = stream.subarray(at, (at += isZero ? 1 : 4096));
      if (block.endsWith(end)) pages.set(address, isZero ? undefined : page);
    }
    at += 5;
    if (type === 0x03) return pages;
  }
}
