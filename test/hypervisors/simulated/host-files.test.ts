import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openHostFiles } from '../../../src/hypervisors/simulated/host-files.ts';

const hostId = '0b7c1c5e-6a0f-4d5f-9a1c-3f6a2f0f8d11';

/** As a worker wrote it before `machine` became `vm`, `held` became `parked` and power `on` became `running`. */
const formerFile = `{"spec":{"imageVersion":"1.0.0+simulated","hostId":"${hostId}","slot":1,"planName":"small","shape":{"vcpus":1,"memoryMib":768,"diskGib":4},"publishedPorts":{"first":20000,"count":2},"egress":{"kind":"internet"},"registries":{"mirrors":[],"insecure":[],"authorities":[]}},"machine":{"port":40123,"startedFrom":"pool","guestReadyAt":1764372000000,"held":true,"power":"on","identified":false,"registries":{"mirrors":[],"insecure":[],"authorities":[]},"connected":false}}`;

describe('host.json of the simulated driver', () => {
  let stateDirectory: string;
  let file: string;

  beforeEach(async () => {
    stateDirectory = await mkdtemp(path.join(tmpdir(), 'berth-files-'));
    file = path.join(stateDirectory, 'simulated', 'hosts', hostId, 'host.json');
    await mkdir(path.dirname(file), { recursive: true });
    await writeFile(file, formerFile);
  });
  afterEach(() => rm(stateDirectory, { recursive: true }));

  it('host.json: a file of the former version is read, and written with present names only', async () => {
    const files = openHostFiles(stateDirectory);
    const host = await files.readHost(hostId);
    expect(host?.vm).toEqual({
      port: 40_123,
      startedFrom: 'pool',
      guestReadyAt: 1_764_372_000_000,
      parked: true,
      power: 'running',
      identified: false,
      registries: { mirrors: [], insecure: [], authorities: [] },
      connected: false,
    });
    if (host === undefined) throw new Error('the file exists');
    await files.writeHost(host);
    expect(await files.readHost(hostId)).toEqual(host);
    expect(await readFile(file, 'utf8')).not.toMatch(/machine|held|"on"/);
  });

  it('host.json: a former host without a VM is read', async () => {
    const { spec } = JSON.parse(formerFile) as { spec: object };
    await writeFile(file, JSON.stringify({ spec }));
    const host = await openHostFiles(stateDirectory).readHost(hostId);
    expect(host?.spec.hostId).toBe(hostId);
    expect(host?.vm).toBeUndefined();
  });
});
