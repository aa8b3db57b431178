import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createHostLocks, type HostLocks } from '../../src/hypervisors/host-locks.ts';
import { compiled } from '../support/build.ts';
import { eventually } from '../support/eventually.ts';
import { silentLogger } from '../support/logger.ts';

const patienceMs = 800;

let program: string;
let directory: string;
let locks: HostLocks;
const holders: ChildProcess[] = [];

beforeAll(async () => {
  program = await compiled();
}, 120_000);
beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'berth-locks-'));
  locks = createHostLocks(directory, { patienceMs, logger: silentLogger });
});
afterEach(async () => {
  for (const holder of holders.splice(0)) holder.kill('SIGKILL');
  await rm(directory, { recursive: true, force: true });
});

/** A process that locks a host while `act` runs; `act` can use `flag(name)` and `until(name)`. */
async function startHolder(act: string): Promise<ChildProcess> {
  const script = `
    import { existsSync, writeFileSync } from 'node:fs';
    import { setTimeout as delay } from 'node:timers/promises';
    import { createHostLocks } from '${program}/hypervisors/host-locks.js';
    import { runTool } from '${program}/hypervisors/run-tool.js';
    const flag = (name) => writeFileSync('${directory}/' + name + '.flag', '');
    const until = async (name) => { while (!existsSync('${directory}/' + name + '.flag')) await delay(10); };
    const locks = createHostLocks('${directory}', { patienceMs: ${patienceMs} });
    await locks.withLock('host', async () => { flag('locked'); ${act} });
    flag('over');`;
  const holder = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  holders.push(holder);
  await raised('locked');
  return holder;
}
const isRaised = (name: string) => existsSync(path.join(directory, `${name}.flag`));
const raise = (name: string) => writeFile(path.join(directory, `${name}.flag`), '');
const raised = (name: string) => eventually(`the flag ${name} is raised`, () => isRaised(name));
const hasEnded = (holder: ChildProcess) => holder.exitCode !== null || holder.signalCode !== null;

/** Asks for the lock, with an act that records that it has begun. */
function lock(): { begun: () => boolean; done: Promise<void> } {
  let begun = false;
  const done = locks.withLock('host', () => {
    begun = true;
    return Promise.resolve();
  });
  return { begun: () => begun, done };
}

describe('a host lock that another process has', () => {
  it('host lock: waits while the holder shows signs of life', async () => {
    const holder = await startHolder(`await delay(${3 * patienceMs}); flag('ready'); await until('go');`);
    const ours = lock();
    await raised('ready');
    expect(ours.begun()).toBe(false);
    expect(hasEnded(holder)).toBe(false);
    await raise('go');
    await ours.done;
    await raised('over');
  });

  it('host lock: is free as soon as the holder is killed', async () => {
    const holder = await startHolder(`await until('never');`);
    const ours = lock();
    holder.kill('SIGKILL');
    await ours.done;
  });

  it('host lock: a suspended holder is killed before the lock passes on', async () => {
    const holder = await startHolder(`await until('go'); flag('acted');`);
    holder.kill('SIGSTOP');
    await raise('go');
    await lock().done;
    holder.kill('SIGCONT');
    await eventually('the holder has ended', () => hasEnded(holder));
    expect(holder.signalCode).toBe('SIGKILL');
    expect(isRaised('acted')).toBe(false);
  });

  it('host lock: stays taken while a tool outlives its killed process', async () => {
    const holder = await startHolder(
      `await runTool('sh', ['-c', 'touch ${directory}/tool.flag; sleep 1; touch ${directory}/tool-over.flag']);`,
    );
    await raised('tool');
    holder.kill('SIGKILL');
    await lock().done;
    expect(isRaised('tool-over')).toBe(true);
  });

  // Fails (hangs) without killOrphanedTools: the tool's time limit ends with the process that ran it.
  it('host lock: a tool that outlives its killed process and hangs is killed, and the lock passes on', async () => {
    const script = `touch ${directory}/tool.flag; sleep 600; touch ${directory}/tool-over.flag`;
    const holder = await startHolder(`await runTool('sh', ['-c', '${script}'], { timeoutMs: 600_000 });`);
    await raised('tool');
    holder.kill('SIGKILL');
    // Others that wait for the lock, also in another process, are not killed.
    const [one, other] = [lock(), startHolder(`flag('other');`)];
    await Promise.all([one.done, other]);
    expect(isRaised('tool-over')).toBe(false);
  });

  it('tryWithLock: does nothing if another process has the lock', async () => {
    await startHolder(`await until('go');`);
    let ran = false;
    const act = () => {
      ran = true;
      return Promise.resolve();
    };
    await locks.tryWithLock('host', act);
    expect(ran).toBe(false);
    await raise('go');
    await raised('over');
    await locks.tryWithLock('host', act);
    expect(ran).toBe(true);
  });
});

describe('a host lock that this process has', () => {
  it('host lock: calls within the act run at once, other calls wait in order', async () => {
    const seen: string[] = [];
    const late: Promise<void>[] = [];
    await locks.withLock('host', async () => {
      late.push(locks.withLock('other', () => Promise.resolve()).then(() => void seen.push('other')));
      await locks.withLock('host', () => Promise.resolve(seen.push('within')));
      await late[0];
      seen.push('outer');
    });
    expect(seen).toEqual(['within', 'other', 'outer']);
    await Promise.all(
      [1, 2, 3].map((n) => locks.withLock('host', () => Promise.resolve(seen.push(`turn ${n}`)))),
    );
    expect(seen.slice(3)).toEqual(['turn 1', 'turn 2', 'turn 3']);
  });

  it('host lock: code that an act left running no longer has the lock', async () => {
    let left: Promise<boolean> | undefined;
    let proceed: () => void = () => undefined;
    const gone = new Promise<void>((resolve) => (proceed = resolve));
    await locks.withLock('host', () => {
      left = gone.then(() => locks.withLock('host', () => Promise.resolve(isRaised('last'))));
      return Promise.resolve();
    });
    await startHolder(`await until('go'); flag('last');`);
    proceed();
    await raise('go');
    expect(await left).toBe(true);
  });

  it('host lock: leaves no file, whether the act succeeds or fails', async () => {
    await lock().done;
    await expect(locks.withLock('host', () => Promise.reject(new Error('no')))).rejects.toThrow('no');
    expect(await readdir(directory)).toEqual([]);
  });
});
