import type { Settings } from '../config/settings.ts';
import { imageOptions } from '../setup/hypervisor.ts';
import { buildGuestImage } from '../hypervisors/qemu/build-image.ts';
import { createProgress } from '../setup/progress.ts';

/** `berth image build`: the guest image with the packages as Debian has them now. */
export async function runImageBuild(settings: Settings): Promise<void> {
  const progress = createProgress(process.stdout);
  const stop = new AbortController();
  process.once('SIGINT', () => {
    stop.abort();
  });
  const image = await buildGuestImage(
    imageOptions(settings),
    ({ step, percent }) => {
      progress.show(`${percent} % ${step}`);
    },
    stop.signal,
  ).finally(() => {
    progress.end();
  });
  process.stdout.write(
    `${image.directory}\n  size    ${(image.bytes / 1024 ** 2).toFixed(0)} MiB\n  digest  ${image.digest}\n`,
  );
}
