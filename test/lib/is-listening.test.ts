import { createServer } from 'node:net';
import { link, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { exists } from '../../src/lib/exists.ts';
import { isListening } from '../../src/lib/is-listening.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'berth-listening-'));
});
afterEach(() => rm(directory, { recursive: true }));

it('isListening: is true while a server listens, and false for the socket file that it left behind', async () => {
  const [socket, left] = [path.join(directory, 'socket'), path.join(directory, 'left')];
  const server = createServer((connection) => connection.destroy());
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  // Node removes its own socket file on close; a second name keeps it, as if the process had been killed.
  await link(socket, left);
  expect(await isListening(left)).toBe(true);
  await new Promise((resolve) => server.close(resolve));
  expect(await exists(left)).toBe(true);
  expect(await isListening(left)).toBe(false);
});

it('isListening: is false if there is no socket', async () => {
  expect(await isListening(path.join(directory, 'none'))).toBe(false);
});
