import { expect, it } from 'vitest';
import { deal, disasters } from '../../tools/chaos/disasters/disasters.ts';
import { createRandom } from '../../tools/chaos/random.ts';

it('disasters: each one is dealt as often as any other, in an order that the seed decides', () => {
  const dealt = (count: number, seed: number) =>
    deal(disasters, count, createRandom(seed)).map(({ name }) => name);
  const often = dealt(3 * disasters.length, 1);
  for (const { name } of disasters) expect(often.filter((one) => one === name)).toHaveLength(3);
  expect(dealt(3 * disasters.length, 1)).toEqual(often);
  expect(dealt(3 * disasters.length, 2)).not.toEqual(often);
  expect(dealt(2, 1)).toEqual(often.slice(0, 2));
});
