import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { getPriority, setPriority, tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { gatewayNiceness, goFirst } from '../../src/processes/processor-priority.ts';

describe.runIf(process.getuid?.() === 0)('processor time of the gateway', () => {
  let directory: string;
  let former: number;
  beforeEach(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'berth-priority-'));
    former = getPriority();
  });
  afterEach(async () => {
    setPriority(0, former);
    await rm(directory, { recursive: true });
  });

  it('raises the priority of the process and of its session', async () => {
    const autogroup = path.join(directory, 'autogroup');
    await writeFile(autogroup, '');
    expect(await goFirst(autogroup)).toBeUndefined();
    expect(getPriority()).toBe(gatewayNiceness);
    expect(await readFile(autogroup, 'utf8')).toBe(String(gatewayNiceness));
  });

  it('tells the operator what a refusal means', async () => {
    expect(await goFirst(directory)).toMatch(/could not be given processor time before hosts \(EISDIR/);
  });
});
