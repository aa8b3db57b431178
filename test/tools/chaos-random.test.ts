import { expect, test } from 'vitest';
import { createRandom } from '../../tools/chaos/random.ts';

test('a drill picks every element of a list, undefined too, and nothing from an empty one', () => {
  const random = createRandom(1);
  const picked = Array.from({ length: 100 }, () => random.pick(['paused', undefined]));
  expect(new Set(picked)).toEqual(new Set(['paused', undefined]));
  expect(() => random.pick([])).toThrow('nothing to pick from');
});

test('a seed and a name give the same choices again', () => {
  const choices = (seed: number, name: string) => {
    const random = createRandom(seed).branch(name);
    return Array.from({ length: 10 }, () => random.integer(1_000));
  };
  expect(choices(1, 'lane 1')).toEqual(choices(1, 'lane 1'));
  expect(choices(1, 'lane 1')).not.toEqual(choices(1, 'lane 2'));
  expect(choices(1, 'lane 1')).not.toEqual(choices(2, 'lane 1'));
});
