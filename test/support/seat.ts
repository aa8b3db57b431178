import { createServer } from 'node:net';
import { eventually } from './eventually.ts';

const seats = [0, 1, 2, 3, 4, 5];

/**
 * Whoever has this seat shares no port, network or user id with anybody else who tests on this machine: another file
 * of the same run, or another checkout. It is waited for where all are taken, and free again when the process ends,
 * however it ends. 0 to 5.
 */
export const seat = await eventually(
  'there is a free seat',
  async () => {
    for (const number of seats) if (await sitDown(number)) return number;
    return undefined;
  },
  { deadlineMs: 600_000, everyMs: 500 },
);

/** On a name that the kernel takes back with the process (unix(7), "abstract"). */
function sitDown(number: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const server = createServer().unref();
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') resolve(false);
      else reject(error);
    });
    server.listen(`\0berth-test-seat-${number}`, () => {
      resolve(true);
    });
  });
}
