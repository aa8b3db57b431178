import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';

const execute = promisify(execFile);
const modules = path.join(import.meta.dirname, '../../image/guest/usr/local/lib/berth');

/**
 * Starts a process with these 64-bit words in its memory, in place of dockerd, lets a Perl script act on it (`$pid`), and
 * returns the words afterwards and what the script printed.
 */
async function actOn(words: readonly bigint[], script: string) {
  const { stdout } = await execute('perl', [
    `-I${modules}`,
    '-MEnginePorts',
    '-e',
    // Written word by word, so that no temporary value contains two of them.
    `my $memory = "\\0" x 4096;
     my $at = 0;
     substr($memory, 8 * $at++, 8) = pack 'Q', $_ for @ARGV;
     pipe(my $from, my $to); pipe(my $end, my $ended); $| = 1;
     my $pid = fork;
     if (!$pid) {
       close $ended; sysread($end, my $x, 1);
       syswrite($to, join(' ', map { unpack 'Q', substr($memory, 8 * $_, 8) } 0 .. $#ARGV));
       exit;
     }
     close $to;
     eval { ${script}; 1 } or print "died: $@";
     close $ended; print "words: ", <$from>;`,
    ...words.map(String),
  ]);
  const [, printed = '', left = ''] = /^(.*)words: (.*)$/s.exec(stdout) ?? [];
  return { printed: printed.trim(), words: left.split(' ').map(BigInt) };
}

const former = [709n, 887n] as const;
const pointer = 0xc0_0012_3450n;
/** As libnetwork has them: fields before, begin, end, and the last port of a range. */
const allocator = [0n, pointer, ...former, 0n];
const range = (last: bigint) => [...former, last];
/** A value that was on a stack. */
const remains = [5n, ...former, 3n];
const replaceAll = `EnginePorts::replace($pid, [709, 887], [20010, 20019], EnginePorts::find($pid, 709, 887))`;

describe("the engine's published ports", () => {
  it("the engine's published ports: are replaced in its allocator and in all ranges, and nothing else is", async () => {
    const { printed, words } = await actOn(
      [...allocator, ...range(887n), ...remains, ...range(711n), ...remains],
      replaceAll,
    );
    const next = [20_010n, 20_019n];
    expect(printed).toBe('');
    expect(words).toEqual([
      ...[0n, pointer, ...next, 0n],
      ...[...next, 20_019n],
      ...remains,
      ...[...next, 20_019n],
      ...remains,
    ]);
  });

  it.each([
    ['no allocator', [...range(887n), ...remains], 0],
    ['two allocators', [...allocator, ...allocator], 2],
  ])("the engine's published ports: %s is an error that changes nothing", async (_, memory, count) => {
    const { printed, words } = await actOn(memory, replaceAll);
    expect(printed).toBe(`died: the engine's port allocator was found at ${count} places instead of one`);
    expect(words).toEqual(memory);
  });

  it("the engine's published ports: a place with another value is an error, one that was replaced before is not", async () => {
    const twice = `my @places = EnginePorts::find($pid, 709, 887);
      EnginePorts::replace($pid, [709, 887], [20010, 20019], @places) for 1, 2; print "twice, ";
      EnginePorts::replace($pid, [709, 887], [20030, 20039], @places)`;
    const { printed, words } = await actOn(allocator, twice);
    expect(printed).toBe("twice, died: the engine's port range is not at its recorded address");
    expect(words).toEqual([0n, pointer, 20_010n, 20_019n, 0n]);
  });

  it.each([
    ['20010-20019', '20010 20019'],
    ['20010', '20010 20010'],
    ['', '709 887'],
    ['709-887', 'invalid'],
    ['20019-20010', 'invalid'],
    ['20010-99999', 'invalid'],
    ["20010-20019' ; reboot", 'invalid'],
  ])('the published ports %j are read as %s', async (text, expected) => {
    const script = `print join ' ', EnginePorts::parse(pack 'H*', '${Buffer.from(text).toString('hex')}')`;
    const { printed } = await actOn([], script);
    expect(printed.replace('died: the published ports are ', '')).toBe(expected);
  });
});
