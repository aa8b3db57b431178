import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { channels } from '../../src/postgres/channels.ts';
import { createCurrentImageRecord, trackImageVersion } from '../../src/postgres/current-image.ts';
import { openDatabase } from '../../src/postgres/database.ts';
import { createInstallationRecords } from '../../src/postgres/installation.ts';
import { startListener } from '../../src/postgres/listener.ts';
import { eventually } from '../support/eventually.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';

let test: TestDatabase;
beforeAll(async () => {
  test = await createTestDatabase(inject('postgres'));
  const owner = openDatabase(test.connectionString);
  await createInstallationRecords(owner).record({ id: crypto.randomUUID(), site: '1234' });
  await owner.destroy();
});
afterAll(() => test.drop());

// Fails without the notification: the next periodic read is an hour away.
it('image on record: an api learns at once of the version that a worker has recorded', async () => {
  const urls = await test.roleUrls();
  const [api, worker] = [openDatabase(urls.api), openDatabase(urls.worker)];
  const listener = await startListener({
    connectionString: urls.api,
    listenTo: [channels.image],
    onLost: () => undefined,
  });
  const known = await trackImageVersion({
    ...{ image: createCurrentImageRecord(api), listener, everyMs: 3_600_000 },
    onError: (error) => {
      throw error;
    },
  });
  try {
    expect(known.current()).toBeUndefined();
    const image = createCurrentImageRecord(worker);
    for (const version of ['1.0.0+a', '1.0.0+b']) {
      await image.write(version);
      await eventually(`version ${version} is known`, () => known.current() === version);
    }
    await expect(createCurrentImageRecord(api).write('1.0.0+c')).rejects.toThrow('permission denied');
  } finally {
    known.stop();
    await listener.stop();
    await Promise.all([api.destroy(), worker.destroy()]);
  }
});
