import { type ChildProcess, spawn } from 'node:child_process';
import { expect, it } from 'vitest';
import { killUntilGone } from '../../src/lib/kill-until-gone.ts';

const isRunning = ({ exitCode, signalCode }: ChildProcess) => exitCode === null && signalCode === null;

it('killUntilGone: ends every listed process and returns when none is left', async () => {
  const children = [spawn('sleep', ['60']), spawn('sleep', ['60'])];
  const list = () => Promise.resolve(children.filter(isRunning).map(({ pid }) => pid ?? 0));
  expect(await list()).toHaveLength(2);
  expect(await killUntilGone(list, 10_000)).toEqual([]);
  expect(children.map(({ signalCode }) => signalCode)).toEqual(['SIGKILL', 'SIGKILL']);
});

it('killUntilGone: returns the processes that still exist after the timeout', async () => {
  // No process can have this number (pid_max is at most 2^22).
  const stuck = 2 ** 30;
  expect(await killUntilGone(() => Promise.resolve([stuck]), 20)).toEqual([stuck]);
});
