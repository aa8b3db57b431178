import { setTimeout as delay } from 'node:timers/promises';
import tls from 'node:tls';
import type { Credentials } from '../../../src/http/osb/credentials-body.ts';
import { withTimeout } from '../../../src/lib/with-timeout.ts';

/** A client that pings its engine all the time over one connection through the gateway. */
export interface Pinger {
  /** Waits for this number of further pings. @returns their times in milliseconds. @throws if the connection was cut. */
  next(count: number): Promise<readonly number[]>;
  close(): void;
}

const request = 'GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n';
/** With a length, as Docker's engine answers, or in chunks. */
const wholeAnswer = /\r\n\r\n(?:OK|2\r\nOK\r\n0\r\n\r\n)$/;
const timeoutMs = 60_000;
const pauseMs = 5;

export async function openPinger({ docker_host, ca, cert, key }: Credentials): Promise<Pinger> {
  const { hostname, port } = new URL(docker_host);
  const socket = tls.connect({ host: hostname, port: Number(port), ca, cert, key });
  socket.setNoDelay();
  let fail: (error: Error) => void = () => undefined;
  const cut = new Promise<never>((_, reject) => (fail = reject));
  cut.catch(() => undefined);
  socket.on('error', fail);
  socket.on('close', () => {
    fail(new Error('the connection was cut'));
  });
  let received = '';
  let answered: () => void = () => undefined;
  socket.setEncoding('latin1').on('data', (text: string) => {
    received += text;
    if (wholeAnswer.test(received)) answered();
  });
  async function ping(): Promise<number> {
    received = '';
    const answer = new Promise<void>((resolve) => (answered = resolve));
    const from = performance.now();
    socket.write(request);
    await withTimeout(timeoutMs, 'a ping', Promise.race([answer, cut]));
    return performance.now() - from;
  }
  const times = [await ping()];
  const pingAll = async () => {
    for (;;) {
      times.push(await ping());
      await delay(pauseMs);
    }
  };
  pingAll().catch(fail);
  return {
    async next(count) {
      const from = times.length;
      while (times.length < from + count) await Promise.race([delay(pauseMs), cut]);
      return times.slice(from);
    },
    close: () => {
      socket.destroy();
    },
  };
}
