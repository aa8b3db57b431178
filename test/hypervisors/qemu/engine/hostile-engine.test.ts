import { spawn } from 'node:child_process';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { pathToFileURL } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { HypervisorError } from '../../../../src/core/hypervisor/hypervisor-error.ts';
import { runningContainers } from '../../../../src/hypervisors/qemu/engine/containers.ts';
import { engineAnswers } from '../../../../src/hypervisors/qemu/engine/engine.ts';
import { compiled } from '../../../support/build.ts';
import {
  type HostileAnswer,
  hostileAnswers,
  makeHostileEngine,
} from '../../../../tools/lib/hostile-engine.ts';

const cleanUp: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const act of cleanUp.splice(0)) await act();
});

async function hostile(answer: HostileAnswer) {
  const engine = await makeHostileEngine(answer);
  cleanUp.push(() => engine.close());
  return engine;
}

// Fails (times out) for "another protocol" without the listeners for `upgrade` and `close` and its deadline.
describe.each(Object.keys(hostileAnswers) as HostileAnswer[])('hostile engine: %s', (answer) => {
  it(`hostile engine: ${answer}: a list of containers is refused within its timeout`, async () => {
    const engine = await hostile(answer);
    await expect(runningContainers(engine, 300)).rejects.toThrow(HypervisorError);
    expect(engine.requests()).toBe(1);
  });

  it(`hostile engine: ${answer}: a ping ends within its timeout`, async () => {
    const engine = await hostile(answer);
    // An engine whose answer begins well may count as one that answers; the call ends in any case.
    expect(await engineAnswers(engine, 300)).toBeTypeOf('boolean');
  });
});

// Fails with a list of chunks in place of one buffer and its limit on the wire: the process runs out of memory.
it('hostile engine: answers in one-byte chunks to many calls at once take little memory', async () => {
  const engine = await hostile('one-byte chunks without end');
  const containers = path.join(await compiled(), 'hypervisors/qemu/engine/containers.js');
  const program = `
    const { runningContainers } = await import(${JSON.stringify(pathToFileURL(containers).href)});
    const ask = (host) => runningContainers({ host, port: ${engine.port} }, 30_000).then(() => 'listed', () => 'refused');
    // Different owners of calls: the whole of 127.0.0.0/8 is this node.
    const hosts = Array.from({ length: 64 }, (_, index) => '127.0.0.1' + String(index).padStart(2, '0'));
    const answers = await Promise.all(hosts.map((host) => ask(host)));
    console.log(JSON.stringify({ answers, maxRssMib: process.resourceUsage().maxRSS / 1024 }));
  `;
  const child = spawn(process.execPath, ['--max-old-space-size=64', '--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const printed = JSON.parse(await text(child.stdout)) as { answers: string[]; maxRssMib: number };
  expect(new Set(printed.answers)).toEqual(new Set(['refused']));
  expect(printed.maxRssMib).toBeLessThan(300);
}, 120_000);
