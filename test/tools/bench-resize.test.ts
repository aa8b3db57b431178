import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, it, onTestFinished, vi } from 'vitest';
import { memfdMib } from '../../tools/bench/lib/proc.ts';
import { listen } from '../../tools/bench/resize/silence.ts';

it('bench resize: measures the memfds of a process, in which the template is loaded', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'berth-memfd-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  const file = path.join(folder, 'memory');
  await writeFile(file, Buffer.alloc(3 * 1024 ** 2, 1));
  const program = path.join(import.meta.dirname, '../../libexec/berth-memory-copy');
  const child = spawn('perl', [program, file, 'sealed']);
  onTestFinished(() => void child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  expect(await memfdMib(child.pid ?? 0)).toBe(3);
  expect(await memfdMib(process.pid)).toBe(0);
});

it('bench resize: hears the longest silence since the last call, also one that lasts, and no end as silence', async () => {
  vi.useFakeTimers({ toFake: ['performance'] });
  onTestFinished(() => void vi.useRealTimers());
  // It says nothing by itself.
  const command = spawn('cat');
  onTestFinished(() => void command.kill('SIGKILL'));
  const listener = listen(command);
  const hears = (afterMs: number) => {
    vi.advanceTimersByTime(afterMs);
    command.stdout.emit('data', Buffer.from('line\n'));
  };
  vi.advanceTimersByTime(5_000);
  expect([listener.hasBegun(), listener.longestSilenceMs()]).toEqual([false, 0]);
  for (const afterMs of [100, 100, 700, 100]) hears(afterMs);
  expect([listener.hasBegun(), listener.longestSilenceMs()]).toEqual([true, 700]);
  hears(100);
  vi.advanceTimersByTime(300);
  expect(listener.longestSilenceMs()).toBe(300);
  hears(600);
  expect(listener.longestSilenceMs()).toBe(900);
  listener.end();
  await once(command, 'exit');
  expect(() => listener.longestSilenceMs()).toThrow('has ended');
});
