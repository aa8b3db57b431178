import { randomUUID } from 'node:crypto';
import { expect, inject, it } from 'vitest';
import {
  answerCertificateRequests,
  forgetDeadRequests,
  requestCertificate,
} from '../../src/postgres/certificate-requests.ts';
import { channels } from '../../src/postgres/channels.ts';
import { openDatabase } from '../../src/postgres/database.ts';
import { startListener } from '../../src/postgres/listener.ts';
import { createTestDatabase } from '../support/postgres.ts';

it('a request that can not be signed keeps no gateway waiting, and those of dead gateways are forgotten', async () => {
  const testDatabase = await createTestDatabase(inject('postgres'));
  const urls = await testDatabase.roleUrls();
  const [owner, api, gateway] = [testDatabase.connectionString, urls.api, urls.gateway].map((url) =>
    openDatabase(url),
  );
  if (owner === undefined || api === undefined || gateway === undefined)
    throw new Error('a database is missing');
  const listener = await startListener({
    ...{ connectionString: urls.api, listenTo: [channels.certificates], onLost: () => undefined },
  });
  await owner('certificate_requests').insert([
    { id: '00000000-0000-4000-8000-000000000000', request: 'bad' },
    { id: randomUUID(), request: 'old', created_at: owner.raw(`now() - interval '1 hour'`) },
  ]);
  const refused: unknown[] = [];
  const authority = randomUUID();
  const stop = answerCertificateRequests(
    api,
    listener,
    (request) =>
      request === 'bad'
        ? Promise.reject(new Error('it can not be read'))
        : Promise.resolve({ chain: `${request}, signed`, authority }),
    (error) => refused.push(error),
  );
  try {
    const signed = await requestCertificate(gateway, listener, 'good', 5_000);
    expect(signed).toEqual({ chain: 'good, signed', authority });
    expect(refused).not.toEqual([]);
    await forgetDeadRequests(api);
    expect(await owner('certificate_requests').pluck('request')).toEqual(['bad']);
  } finally {
    stop();
    await listener.stop();
    await Promise.all([owner, api, gateway].map((one) => one.destroy()));
    await testDatabase.drop();
  }
});
