import type { Logger } from '../lib/logger.ts';

/** Runs `act` for each instance, one after the other; the failure of one is logged and keeps no other from its turn. */
export async function forEachInstance(
  ids: readonly string[],
  deps: { readonly failed: string; readonly logger: Logger },
  act: (id: string) => Promise<void>,
): Promise<void> {
  for (const id of ids) {
    try {
      await act(id);
    } catch (error) {
      deps.logger.error({ instance: id, err: error }, deps.failed);
    }
  }
}
