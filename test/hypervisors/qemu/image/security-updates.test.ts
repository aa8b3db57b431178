import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { securityUpdates } from '../../../../src/hypervisors/qemu/image/security-updates.ts';

let recipeDirectory: string;

beforeEach(async () => {
  recipeDirectory = await mkdtemp(path.join(tmpdir(), 'berth-recipe-'));
});

afterEach(() => rm(recipeDirectory, { recursive: true }));

const recipe = (script: string) => writeFile(path.join(recipeDirectory, 'build'), script);
const packages = ['iptables 2.41-1', 'systemd 257-1'];

it('security updates: the recipe gets suite and packages, and prints those with a newer version', async () => {
  await recipe('[ "$1 $2" = "updates trixie" ] && [ -d "$3" ] && sed "s/$/+deb13u1/; s/.* /&1 /"');
  expect(await securityUpdates({ recipeDirectory }, 'trixie', packages)).toEqual([
    { name: 'iptables', version: '1', newer: '2.41-1+deb13u1' },
    { name: 'systemd', version: '1', newer: '257-1+deb13u1' },
  ]);
});

it('security updates: a failure says what the recipe printed', async () => {
  await recipe('echo "E: Failed to fetch" >&2; exit 100');
  await expect(securityUpdates({ recipeDirectory }, 'trixie', packages)).rejects.toThrow(
    'E: Failed to fetch',
  );
});
