import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readHostRecord, writeHostRecord } from '../../../src/hypervisors/qemu/host-record.ts';

/** As a worker wrote it before `held` became `parked` and power `on` became `running`. */
const formerFile = `{
  "hostId": "0b7c1c5e-6a0f-4d5f-9a1c-3f6a2f0f8d11",
  "slot": 7,
  "planName": "small",
  "shape": {
    "vcpus": 2,
    "memoryMib": 768,
    "diskGib": 4
  },
  "publishedPorts": {
    "first": 20140,
    "count": 20
  },
  "image": "9f2c",
  "template": "small-1a2b",
  "diskIsUsed": true,
  "startedFrom": "pool",
  "held": true,
  "power": "on"
}
`;

const present = {
  hostId: '0b7c1c5e-6a0f-4d5f-9a1c-3f6a2f0f8d11',
  slot: 7,
  planName: 'small',
  shape: { vcpus: 2, memoryMib: 768, diskGib: 4 },
  publishedPorts: { first: 20_140, count: 20 },
  image: '9f2c',
  template: 'small-1a2b',
  diskIsUsed: true,
  startedFrom: 'pool',
  parked: true,
  power: 'running',
};

describe('host.json of the qemu driver', () => {
  let directory: string;
  let file: string;

  beforeEach(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'berth-record-'));
    file = path.join(directory, present.hostId, 'host.json');
    await mkdir(path.dirname(file));
  });
  afterEach(() => rm(directory, { recursive: true }));

  it('host.json: a record of the former version is read with its present names', async () => {
    await writeFile(file, formerFile);
    expect(await readHostRecord(file)).toEqual(present);
  });

  it('host.json: a former record that is written again contains present names only', async () => {
    await writeFile(file, formerFile);
    const record = await readHostRecord(file);
    if (record === undefined) throw new Error('the record exists');
    await writeHostRecord(file, { ...record, parked: false });
    expect(JSON.parse(await readFile(file, 'utf8'))).toEqual({ ...present, parked: false });
    expect(await readHostRecord(file)).toEqual({ ...present, parked: false });
  });

  it.each(['paused', 'suspended'])('host.json: power %s of a former record stays as it is', async (power) => {
    await writeFile(
      file,
      formerFile.replace('"on"', `"${power}"`).replace('true,\n  "power"', 'false,\n  "power"'),
    );
    expect(await readHostRecord(file)).toEqual({ ...present, parked: false, power });
  });

  it('host.json: undefined if the file does not exist', async () => {
    expect(await readHostRecord(file)).toBeUndefined();
  });
});
