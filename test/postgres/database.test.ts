import net from 'node:net';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { auditShare, longestAnswerMs } from '../../src/http/limits.ts';
import { openDatabase, processTimeouts } from '../../src/postgres/database.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';

let testDatabase: TestDatabase;
beforeAll(async () => {
  testDatabase = await createTestDatabase(inject('postgres'));
});
afterAll(() => testDatabase.drop());

it('database: the server cancels a slow statement within the time of an answer, but no migration', async () => {
  expect(processTimeouts.statementMs).toBeLessThan(longestAnswerMs * (1 - auditShare));
  expect(processTimeouts.silenceMs).toBeGreaterThan(processTimeouts.statementMs);
  const limited = openDatabase(testDatabase.connectionString, {
    timeouts: { ...processTimeouts, statementMs: 200 },
  });
  const unlimited = openDatabase(testDatabase.connectionString);
  try {
    await expect(limited.raw('SELECT pg_sleep(600)')).rejects.toMatchObject({ code: '57014' });
    const setting = await unlimited.raw<{ rows: unknown[] }>('SHOW statement_timeout');
    expect(setting.rows).toEqual([{ statement_timeout: '0' }]);
  } finally {
    await Promise.all([limited.destroy(), unlimited.destroy()]);
  }
});

it('database: drops a connection to a server that has vanished, and the next one works', async () => {
  // A proxy on the way, which can stop passing data on.
  const url = new URL(testDatabase.connectionString.replace('@/', '@localhost/'));
  const server = `${url.searchParams.get('host') ?? ''}/.s.PGSQL.${url.searchParams.get('port') ?? '5432'}`;
  const open: net.Socket[] = [];
  const proxy = net.createServer((near) => {
    const far = net.connect(server);
    open.push(near, far);
    for (const end of [near, far]) end.on('error', () => undefined);
    near.pipe(far).pipe(near);
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  const { port } = proxy.address() as net.AddressInfo;
  const database = openDatabase(
    `postgresql://${url.username}:${url.password}@127.0.0.1:${port}${url.pathname}`,
    { maxConnections: 1, timeouts: { statementMs: 0, silenceMs: 500 } },
  );
  try {
    await database.raw('SELECT 1');
    for (const end of open) end.unpipe().pause();
    await expect(database.raw('SELECT 1')).rejects.toThrow(/silent for 500 ms|terminated/);
    await database.raw('SELECT 1');
  } finally {
    for (const end of open) end.destroy();
    await database.destroy();
    proxy.close();
  }
});
