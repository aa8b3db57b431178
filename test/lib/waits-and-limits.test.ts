import { describe, expect, it, vi } from 'vitest';
import { createBoundedBuffer } from '../../src/lib/bounded-buffer.ts';
import { createFairLimit } from '../../src/lib/fair-limit.ts';
import { createLineReader, TooMuchDataError } from '../../src/lib/line-reader.ts';
import { settleWithin } from '../../src/lib/settle-within.ts';

describe('settle within', () => {
  it('settle within: is settled at the deadline although nothing happens, and ends the work', async () => {
    const end = vi.fn();
    expect(
      await settleWithin(
        10,
        () => 'late',
        () => end,
      ),
    ).toBe('late');
    expect(end).toHaveBeenCalledTimes(1);
  });

  it('settle within: the first result counts, and ends the work once', async () => {
    const end = vi.fn();
    const result = await settleWithin<string>(
      10_000,
      () => 'late',
      (settle) => {
        settle.resolve('first');
        settle.reject(new Error('second'));
        return end;
      },
    );
    expect(result).toBe('first');
    expect(end).toHaveBeenCalledTimes(1);
  });

  it('settle within: rejects with what the begin or the deadline throws', async () => {
    const broken = settleWithin<undefined>(
      10_000,
      () => undefined,
      () => {
        throw new Error('it did not begin');
      },
    );
    await expect(broken).rejects.toThrow('it did not begin');
    const late = settleWithin<undefined>(
      10,
      () => {
        throw new Error('too late');
      },
      () => () => undefined,
    );
    await expect(late).rejects.toThrow('too late');
  });
});

it('bounded buffer: many small chunks take the memory of their bytes only', () => {
  const buffer = createBoundedBuffer(100_000);
  for (let count = 0; count < 100_000; count += 1) expect(buffer.append(Buffer.from('a'))).toBe(true);
  expect(buffer.append(Buffer.from('a'))).toBe(false);
  expect(buffer.content().toString()).toBe('a'.repeat(100_000));
  expect(buffer.content().buffer.byteLength).toBe(100_000);
});

it('line reader: returns lines from chunks of any size, and refuses too long ones and too many', () => {
  const read = createLineReader({ line: 5, total: 20 });
  expect(read(Buffer.from('on'))).toEqual([]);
  expect(read(Buffer.from('e\ntwo\nth'))).toEqual(['one', 'two']);
  expect(read(Buffer.from('ree\n'))).toEqual(['three']);
  expect(() => read(Buffer.from('eleven'))).toThrow(TooMuchDataError);
  const readShort = createLineReader({ line: 5, total: 8 });
  expect(() => readShort(Buffer.from('a\nb\nc\nd\ne\n'))).toThrow(TooMuchDataError);
});

describe('fair limit', () => {
  /** Enters acts and notes in which order they begin. */
  function makeLimit(limits: { atOnce: number; perOwner: number }) {
    const limit = createFairLimit(limits);
    const begun: string[] = [];
    const ends = new Map<string, () => void>();
    return {
      begun,
      enter: (owner: string, act: string) => {
        ends.set(
          act,
          limit.enter(owner, () => begun.push(act)),
        );
      },
      end: (act: string) => ends.get(act)?.(),
    };
  }

  it('fair limit: owners take turns, however many acts one of them has queued', () => {
    const { enter, end, begun } = makeLimit({ atOnce: 1, perOwner: 1 });
    for (const act of ['a1', 'a2', 'a3']) enter('a', act);
    enter('b', 'b1');
    for (const act of ['a1', 'a2', 'b1', 'a3']) end(act);
    expect(begun).toEqual(['a1', 'a2', 'b1', 'a3']);
  });

  it('fair limit: one owner never takes all turns', () => {
    const { enter, end, begun } = makeLimit({ atOnce: 3, perOwner: 2 });
    for (const act of ['a1', 'a2', 'a3']) enter('a', act);
    expect(begun).toEqual(['a1', 'a2']);
    enter('b', 'b1');
    expect(begun).toEqual(['a1', 'a2', 'b1']);
    end('a2');
    end('a2');
    expect(begun).toEqual(['a1', 'a2', 'b1', 'a3']);
  });

  it('fair limit: an act that leaves the queue never begins', () => {
    const { enter, end, begun } = makeLimit({ atOnce: 1, perOwner: 1 });
    enter('a', 'a1');
    enter('b', 'b1');
    enter('c', 'c1');
    end('b1');
    end('a1');
    expect(begun).toEqual(['a1', 'c1']);
  });
});
