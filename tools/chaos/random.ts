/** Pseudo-random numbers from a seed. */
export interface Random {
  /** At least 0, less than `below`. */
  number(below: number): number;
  integer(below: number): number;
  /** True with this probability. */
  chance(probability: number): boolean;
  /** @throws Error if the list is empty. */
  pick<T>(list: readonly T[]): T;
  /** Another sequence, derived from this seed and the name. */
  branch(name: string): Random;
}

/** Mulberry32 by Tommy Ettinger (public domain): 32 bits of state are enough here. */
export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const number = (below: number) => next() * below;
  const integer = (below: number) => Math.floor(number(below));
  return {
    number,
    integer,
    chance: (probability) => next() < probability,
    pick<T>(list: readonly T[]): T {
      if (list.length === 0) throw new Error('nothing to pick from');
      return list[integer(list.length)] as T;
    },
    branch: (name) => createRandom(Buffer.from(name).reduce((sum, byte) => Math.imul(sum, 31) + byte, seed)),
  };
}
