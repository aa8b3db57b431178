import { expect, it } from 'vitest';
import { contains, formatAddress, networkRange, overlap } from '../../src/lib/ipv4.ts';

it('networkRange: reaches from the first to the last address, also if a host address names the network', () => {
  const range = networkRange('10.209.3.7/16');
  expect(formatAddress(range.first)).toBe('10.209.0.0');
  expect(formatAddress(range.last)).toBe('10.209.255.255');
});

it('networkRange: handles addresses above 2^31 and the whole address space', () => {
  expect(formatAddress(networkRange('224.0.0.0/3').last)).toBe('255.255.255.255');
  expect(networkRange('0.0.0.0/0')).toEqual({ first: 0, last: 2 ** 32 - 1 });
});

it('networkRange: takes an address without a length as a network of one', () => {
  const { first, last } = networkRange('192.168.1.2');
  expect(first).toBe(last);
  expect(formatAddress(first)).toBe('192.168.1.2');
});

it('contains: is true only if every address of the inner network is in the outer one', () => {
  expect(contains('10.0.0.0/8', '10.209.0.0/16')).toBe(true);
  expect(contains('10.209.0.0/16', '10.209.0.0/16')).toBe(true);
  expect(contains('10.209.0.0/16', '10.0.0.0/8')).toBe(false);
});

it('overlap: is true if one network contains the other, in either order', () => {
  expect(overlap('10.0.0.0/8', '10.209.0.0/16')).toBe(true);
  expect(overlap('10.209.0.0/16', '10.0.0.0/8')).toBe(true);
  expect(overlap('10.0.0.0/9', '10.128.0.0/9')).toBe(false);
});
