import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { lockStateDirectory } from '../../src/hypervisors/state-directory-lock.ts';
import { eventually } from '../support/eventually.ts';
import { compiled } from '../support/build.ts';

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'berth-lock-'));
});
afterAll(() => rm(directory, { recursive: true }));

// Fails with a lock that is a socket file: each of two starts removes the other's, in one of ten attempts.
it('state directory lock: of simultaneous starts never more than one has it, also if a third one releases it', async () => {
  for (let round = 0; round < 100; round += 1) {
    const former = round % 2 === 0 ? await lockStateDirectory(directory) : undefined;
    const attempts = Promise.allSettled([lockStateDirectory(directory), lockStateDirectory(directory)]);
    await former?.release();
    const locks = (await attempts).flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
    expect(locks.length).toBeLessThanOrEqual(1);
    if (former === undefined) expect(locks).toHaveLength(1);
    for (const lock of locks) await lock.release();
  }
});

it('state directory lock: names the process that has it, and ends with it however it ends', async () => {
  const module = path.join(await compiled(), 'hypervisors', 'state-directory-lock.js');
  const holder = spawn(process.execPath, [
    '--input-type=module',
    '--eval',
    `const { lockStateDirectory } = await import(${JSON.stringify(module)});
     await lockStateDirectory(${JSON.stringify(directory)});
     setInterval(() => undefined, 1000);`,
  ]);
  const pid = String(holder.pid);
  await eventually('the other process has the lock', async () =>
    (await readFile(path.join(directory, 'supervisor.lock'), 'utf8').catch(() => '')).startsWith(pid),
  );
  await expect(lockStateDirectory(directory)).rejects.toThrow(`another Berth (process ${pid}) uses`);
  holder.kill('SIGKILL');
  await once(holder, 'exit');
  await (await lockStateDirectory(directory)).release();
});
