import { dataDevice } from '../launch/arguments.ts';
import type { Qmp } from '../launch/qmp.ts';
import type { DiskRate } from '../options.ts';

/**
 * A guest may exceed its rate this many times until it is ahead by what the burst allows in these seconds: 10 s from the
 * start (QEMU's docs/throttle.txt).
 */
const burst = { factor: 2, seconds: 5 };
/** The device has no disk itself: its inner part does. */
const qomPath = `/machine/peripheral/${dataDevice}/virtio-backend`;

/**
 * Limits what a guest reads and writes on its data disk (QEMU's `block_set_io_throttle`). By command and not by argument,
 * so that a VM that is restored from a template or from its suspended memory has the present limit. cgroup v1 does not
 * limit buffered writes, and version 2 not on every file system. Discards are free, so that deleting does not wait.
 */
export async function limitDiskRate(qmp: Qmp, { mibPerSecond, iops }: DiskRate): Promise<void> {
  const bps = mibPerSecond * 1024 ** 2;
  await qmp.execute('block_set_io_throttle', {
    id: qomPath,
    ...{ bps, bps_rd: 0, bps_wr: 0, iops, iops_rd: 0, iops_wr: 0 },
    ...{ bps_max: bps * burst.factor, bps_max_length: burst.seconds },
    ...{ iops_max: iops * burst.factor, iops_max_length: burst.seconds },
  });
}

/** The limits in force, a line for each device that has one. A VM that version 0.2 started has none. */
export async function diskRates(qmp: Qmp): Promise<string[]> {
  const devices = (await qmp.execute('query-block')) as readonly {
    qdev?: string;
    inserted?: Readonly<Record<string, unknown>> & { bps: number; iops: number };
  }[];
  return devices.flatMap(({ qdev, inserted }) =>
    inserted === undefined || inserted.bps + inserted.iops === 0
      ? []
      : [
          `limit of ${qdev ?? 'a disk'}: ${inserted.bps} bytes/s, ${inserted.iops} requests/s; burst ${String(inserted['bps_max'])}, ${String(inserted['iops_max'])}`,
        ],
  );
}
