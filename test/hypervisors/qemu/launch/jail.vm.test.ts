import { execFile } from 'node:child_process';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openJail } from '../../../../src/hypervisors/qemu/launch/jail.ts';
import { compiled } from '../../../support/build.ts';
import { eventually } from '../../../support/eventually.ts';

const execute = promisify(execFile);
const workers = 4;
const rounds = 5;

/** The jail's root appears complete or not at all, even if several workers make it at the same time. */
describe('jail root', { timeout: 600_000 }, () => {
  let program: string;
  let directory: string;
  beforeAll(async () => {
    program = await compiled();
    directory = await mkdtemp(path.join(tmpdir(), 'berth-jail-'));
  }, 300_000);
  afterAll(() => rm(directory, { recursive: true }));

  const rootOf = (command: readonly string[]) =>
    path.dirname(command[command.indexOf('--ro-bind') + 1] ?? '');
  /** Every file of a root with its digest, as sha256sum(1) prints them. */
  const contentsOf = async (root: string) =>
    (await execute('sh', ['-c', 'cd "$1" && find . -type f | sort | xargs sha256sum', 'sh', root])).stdout;

  /** A starting worker: opens its jail once the file `go` exists, and prints the jail's command. */
  function startWorker(state: string, name: string, go: string) {
    const script = `
      import { existsSync, writeFileSync } from 'node:fs';
      import { openJail } from '${program}/hypervisors/qemu/launch/jail.js';
      writeFileSync('${state}/${name}.ready', '');
      while (!existsSync('${go}'));
      console.log(JSON.stringify((await openJail('${state}')).command([], '/')));`;
    return execute(process.execPath, ['--input-type=module', '--eval', script]);
  }

  it('jail root: workers that start at the same time get the same complete root as a single one', async () => {
    // Fails without the lock in ensureRoot, which once let a half-made root be published.
    const alone = await mkdtemp(path.join(directory, 'alone-'));
    const whole = await contentsOf(rootOf((await openJail(alone)).command([], '/')));
    expect(whole).toContain('/usr/bin/qemu-system-x86_64');

    for (let round = 0; round < rounds; round += 1) {
      const state = await mkdtemp(path.join(directory, 'shared-'));
      const go = path.join(state, 'go');
      const started = Array.from({ length: workers }, (_, index) => startWorker(state, String(index), go));
      const ready = async () =>
        (await readdir(state)).filter((name) => name.endsWith('.ready')).length === workers;
      await eventually('all are ready', ready, { deadlineMs: 30_000 });
      await writeFile(go, '');
      const roots = (await Promise.all(started)).map(({ stdout }) => rootOf(JSON.parse(stdout) as string[]));
      expect(new Set(roots).size).toBe(1);
      expect(await contentsOf(roots[0] ?? '')).toBe(whole);
      // No unfinished attempt of another worker is left.
      expect(await readdir(path.join(state, 'jail'))).toEqual([path.basename(roots[0] ?? '')]);
    }
  });
});
