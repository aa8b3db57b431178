import { Worker } from 'node:worker_threads';
import type { Logger } from '../lib/logger.ts';
import { withTimeout } from '../lib/with-timeout.ts';

/** What the thread knows from its start. */
export interface LeaseThreadData {
  readonly connectionString: string;
  /** Milliseconds from the end of each renewal, or of its failure, to the next one. */
  readonly renewEveryMs: number;
  /** A renewal that takes longer has failed. Milliseconds. */
  readonly timeoutMs: number;
  /** The lease is not renewed once the first thread has not renewed it itself for this time. Milliseconds. */
  readonly longestStallMs: number;
}

/** The lease that the thread renews; `buffer` is that of a SharedLease. */
export interface LeaseOrders {
  readonly gatewayId: string;
  readonly leaseMs: number;
  readonly buffer: SharedArrayBuffer;
}

/** The thread reports changes only: it can renew, from its start or again; or it can't, and retries. */
export type LeaseThreadReport = { readonly works: true } | { readonly works: false; readonly reason: string };

/** Renews a gateway's lease in a thread beside the gateway's, under any load. */
export interface LeaseRenewal {
  /** Renews this lease from now on, and no other; undefined: none. */
  renew(orders: LeaseOrders | undefined): void;
  stop(): Promise<void>;
}

/** The thread's program, beside the compiled form of this module: processes only ever run compiled. */
export const leaseThreadFile = new URL('lease-thread.js', import.meta.url);

/** Longest time for the thread to load and to connect for the first time. Milliseconds. */
const startTimeoutMs = 20_000;

/**
 * Starts the thread and waits until it is connected. To be called before root is dropped: by then it has loaded all of
 * its modules. It does not keep the process alive.
 * @throws if the thread can't be started or can't connect in time.
 */
export async function startLeaseRenewal(
  deps: LeaseThreadData & { readonly file: URL; readonly logger: Logger },
): Promise<LeaseRenewal> {
  const { file, logger, ...data } = deps;
  const thread = new Worker(file, { workerData: data satisfies LeaseThreadData });
  thread.unref();
  const firstSuccess = new Promise<void>((resolve, reject) => {
    thread.on('message', (report: LeaseThreadReport) => {
      if (report.works) {
        resolve();
        logger.info({}, 'A thread renews the lease under load');
      } else {
        logger.warn(
          { reason: report.reason },
          'The thread that renews the lease under load failed; retrying every second',
        );
      }
    });
    thread.once('error', reject);
  });
  try {
    await withTimeout(startTimeoutMs, 'starting the thread that renews the lease', firstSuccess);
  } catch (error) {
    await thread.terminate();
    throw error;
  }
  let isStopped = false;
  thread.on('error', (error) => {
    logger.error({ err: error }, 'The thread that renews the lease under load failed');
  });
  thread.on('exit', () => {
    if (isStopped) return;
    logger.error({}, 'The thread that renews the lease under load has ended; the gateway renews it alone');
  });
  return {
    renew(orders) {
      thread.postMessage(orders);
    },
    async stop() {
      isStopped = true;
      await thread.terminate();
    },
  };
}
