import { randomUUID } from 'node:crypto';
import { expect, inject, it } from 'vitest';
import {
  createCertificateRequester,
  createCertificateRequestQueue,
} from '../../src/postgres/certificate-requests.ts';
import { channels } from '../../src/postgres/channels.ts';
import { openDatabase } from '../../src/postgres/database.ts';
import { startListener } from '../../src/postgres/listener.ts';
import { createTestDatabase } from '../support/postgres.ts';

it('certificate requests: one that can not be signed does not block the others, and those of dead gateways are deleted', async () => {
  const testDatabase = await createTestDatabase(inject('postgres'));
  const urls = await testDatabase.roleUrls();
  const [owner, api, gateway] = [testDatabase.connectionString, urls.api, urls.gateway].map((url) =>
    openDatabase(url),
  );
  if (owner === undefined || api === undefined || gateway === undefined)
    throw new Error('a database is missing');
  const listener = await startListener({
    ...{ connectionString: urls.api, listenTo: [channels.certificateRequests], onLost: () => undefined },
  });
  await owner('certificate_requests').insert([
    { id: '00000000-0000-4000-8000-000000000000', request: 'bad' },
    { id: randomUUID(), request: 'old', created_at: owner.raw(`now() - interval '1 hour'`) },
  ]);
  const refused: unknown[] = [];
  const ca = randomUUID();
  const queue = createCertificateRequestQueue(api, listener);
  const stop = queue.answer(
    (request) =>
      request === 'bad'
        ? Promise.reject(new Error('it can not be parsed'))
        : Promise.resolve({ chain: `${request}, signed`, ca }),
    (error) => refused.push(error),
  );
  try {
    const signed = await createCertificateRequester(gateway, listener).request('good', 5_000);
    expect(signed).toEqual({ chain: 'good, signed', ca });
    expect(refused).not.toEqual([]);
    await queue.deleteAbandoned();
    expect(await owner('certificate_requests').pluck('request')).toEqual(['bad']);
  } finally {
    stop();
    await listener.stop();
    await Promise.all([owner, api, gateway].map((one) => one.destroy()));
    await testDatabase.drop();
  }
});
