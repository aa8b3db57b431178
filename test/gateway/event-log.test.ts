import net from 'node:net';
import { beforeAll, expect, it } from 'vitest';
import { createWorld, type World } from './support/certificates.ts';
import { get, startGateway } from './support/harness.ts';
import { until } from './support/until.ts';

let world: World;
beforeAll(async () => {
  world = await createWorld();
});

// Fails without the event log: each of the 100 has a line, and strangers fill the disk.
it('event log: of what strangers cause, one line of each reason in ten seconds, and the number of the others', async () => {
  let ahead = 0;
  const clock = { monotonic: () => performance.now() + ahead, wall: () => Date.now() };
  const harness = await startGateway(world, { clock, leaseMs: 3_600_000 });
  const { counters } = harness.gateway.state();
  const lines = (text: string) => harness.lines.filter((line) => line.includes(text));
  const sendNonsense = () => {
    const socket = net.connect(harness.port, '127.0.0.1').on('error', () => undefined);
    socket.end('no TLS');
  };
  for (let sent = 0; sent < 100; sent += 1) sendNonsense();
  await until('they are counted', () => counters.failedHandshakes === 100);
  expect(lines('failed-handshake')).toHaveLength(1);
  // Another reason has its own line.
  expect(await harness.connect(undefined).ask(get('/_ping'))).toContain('403');
  expect(lines('"reason":"untrusted","source":"127.0.0.1"')).toHaveLength(1);

  ahead = 10_000;
  sendNonsense();
  await until('it is counted', () => counters.failedHandshakes === 101);
  expect(lines('failed-handshake')).toHaveLength(2);
  expect(lines('"notLogged":99')).toHaveLength(1);
});
