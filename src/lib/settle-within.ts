/** Settles a promise of {@link settleWithin}. Only the first call of either counts. */
export interface Settle<T> {
  resolve(value: T): void;
  reject(error: Error): void;
}

/**
 * A promise that is settled by its deadline, also if the other side never answers: for waits on a guest, QEMU, a
 * tool or a socket, whose events may never come.
 * @param ms the deadline, in milliseconds from now.
 * @param atDeadline the result at the deadline; it may throw instead.
 * @param begin begins the work and returns a function that ends it, which is called once, however the promise is settled.
 */
export function settleWithin<T>(
  ms: number,
  atDeadline: () => T,
  begin: (settle: Settle<T>) => () => void,
): Promise<T> {
  return new Promise((resolve, reject) => {
    let isSettled = false as boolean;
    let end: (() => void) | undefined;
    const once = (act: () => void) => {
      if (isSettled) return;
      isSettled = true;
      clearTimeout(timer);
      act();
      end?.();
    };
    const settle: Settle<T> = {
      resolve: (value) => {
        once(() => {
          resolve(value);
        });
      },
      reject: (error) => {
        once(() => {
          reject(error);
        });
      },
    };
    const timer = setTimeout(() => {
      try {
        settle.resolve(atDeadline());
      } catch (error) {
        settle.reject(error as Error);
      }
    }, ms);
    try {
      end = begin(settle);
    } catch (error) {
      settle.reject(error as Error);
    }
    // It may have been settled while it began.
    if (isSettled) end?.();
  });
}
