import { createServer } from 'node:net';
import { eventually } from './eventually.ts';

const slots = [0, 1, 2, 3, 4, 5];

/**
 * The test slot of this process, 0 to 5. Test files derive their ports, networks and user ids from it, so that files
 * that run at the same time on this node, also those of another checkout, don't collide. If all slots are taken, waits
 * for a free one. The slot is released when the process ends, however it ends.
 */
export const testSlot = await eventually(
  'there is a free test slot',
  async () => {
    for (const slot of slots) if (await claim(slot)) return slot;
    return undefined;
  },
  { deadlineMs: 600_000, everyMs: 500 },
);

/** Binds an abstract socket, which the kernel removes with the process (unix(7), "abstract"). */
function claim(slot: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const server = createServer().unref();
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') resolve(false);
      else reject(error);
    });
    server.listen(`\0berth-test-slot-${slot}`, () => {
      resolve(true);
    });
  });
}
