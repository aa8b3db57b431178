import { randomUUID } from 'node:crypto';
import { appendFile, mkdtemp, readdir, readFile, rename, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { openRevocationJournal, readRevocations } from '../../src/history/revocation-journal.ts';
import { createLineLogger, silentLogger } from '../support/logger.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'berth-journal-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const hourMs = 3_600_000;
const revocation = (expiresInMs = hourMs) => ({
  bindingId: randomUUID(),
  expiresAt: new Date(Math.ceil((Date.now() + expiresInMs) / 1000) * 1000),
});
const files = async () => (await readdir(folder)).sort().map((name) => path.join(folder, name));
const onlyFile = async () => (await files())[0] ?? '';

async function readAll(): Promise<{ ids: string[]; damaged: string[] }> {
  const found = { ids: [] as string[], damaged: [] as string[] };
  const onDamaged = (_: string, why: string) => found.damaged.push(why);
  for await (const batch of readRevocations(folder, onDamaged)) {
    found.ids.push(...batch.map(({ bindingId }) => bindingId));
  }
  return found;
}

it('revocation journal: what two processes have added is read, apart from expired certificates', async () => {
  const [one, other] = [
    openRevocationJournal(folder, { logger: silentLogger }),
    openRevocationJournal(folder, { logger: silentLogger }),
  ];
  const added = Array.from({ length: 200 }, () => revocation());
  await Promise.all(added.map((each, at) => (at % 2 === 0 ? one : other).append([each])));
  await one.append([revocation(-hourMs)]);
  const { ids, damaged } = await readAll();
  expect(ids.sort()).toEqual(added.map(({ bindingId }) => bindingId).sort());
  expect(damaged).toEqual([]);
  expect(await files()).toHaveLength(2);
  await Promise.all([one.close(), other.close()]);
});

it('revocation journal: half a line at the end is harmless; a damaged line is reported and costs no other', async () => {
  const journal = openRevocationJournal(folder, { logger: silentLogger });
  const [first, second] = [revocation(), revocation()];
  await journal.append([first]);
  await appendFile(await onlyFile(), `${randomUUID()} 99`);
  expect(await readAll()).toEqual({ ids: [first.bindingId], damaged: [] });

  const whole = (await readFile(await onlyFile(), 'utf8')).split('\n')[0] ?? '';
  const altered = whole.replace(/ \d+ /, ' 9999999999 ');
  await writeFile(await onlyFile(), `${altered}\n\0\0\0\n`);
  await journal.append([second]);
  expect(await readAll()).toEqual({ ids: [second.bindingId], damaged: ['2 lines are damaged'] });
  await journal.close();
});

// Fails if the next write continues the file that failed: its first line would join half a line.
it('revocation journal: a write that fails is an error, and the next one begins another file', async () => {
  const { logger, lines } = createLineLogger();
  const journal = openRevocationJournal(folder, { logger });
  await rename(folder, `${folder}.away`);
  await expect(journal.append([revocation()])).rejects.toThrow('ENOENT');
  expect(lines[0]?.message).toContain('could not be written');
  await rename(`${folder}.away`, folder);
  const later = revocation();
  await journal.append([later]);
  expect((await readAll()).ids).toEqual([later.bindingId]);
  await journal.close();
});

it('revocation journal: complete files whose certificates have expired are removed, damaged ones never', async () => {
  const add = async (expiresInMs: number) => {
    const journal = openRevocationJournal(folder, { logger: silentLogger });
    const before = await files();
    await journal.append([revocation(expiresInMs)]);
    await journal.close();
    const file = (await files()).find((name) => !before.includes(name)) ?? '';
    await utimes(file, new Date(0), new Date(0));
    return file;
  };
  const live = await add(hourMs);
  const expired = await add(-hourMs);
  const damaged = await add(-hourMs);
  // The last one has removed the one before, and it is damaged itself.
  expect(await files()).not.toContain(expired);
  await appendFile(damaged, 'no revocation\n');
  await utimes(damaged, new Date(0), new Date(0));
  await add(hourMs);
  expect(await files()).toEqual(expect.arrayContaining([live, damaged]));
});

it('revocation journal: beyond its size the oldest file is removed, with a warning', async () => {
  const { logger, lines } = createLineLogger();
  const batch = () => Array.from({ length: 10 }, () => revocation());
  for (let round = 0; round < 4; round += 1) {
    const journal = openRevocationJournal(folder, { logger, maxBytes: 1_200 });
    await journal.append(batch());
    await journal.close();
  }
  // Two files of 560 bytes, and the one that was begun last.
  expect(await files()).toHaveLength(3);
  expect(lines.map(({ message }) => message)).toEqual([expect.stringContaining('oldest file is removed')]);
});
