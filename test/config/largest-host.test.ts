import { expect, it } from 'vitest';
import { readCatalog } from '../../src/config/read-catalog.ts';
import { readSettings } from '../../src/config/settings.ts';

it('catalog: a plan that is larger than a host can be is refused with the setting to change', async () => {
  await expect(readCatalog(readSettings({}))).resolves.toBeDefined();
  const small = readSettings({ BERTH_LARGEST_HOST_VCPUS: '2', BERTH_LARGEST_HOST_MEMORY_MIB: '1024' });
  await expect(readCatalog(small)).rejects.toThrow(
    /plan medium has 2048 MiB of memory: set BERTH_LARGEST_HOST_MEMORY_MIB.*plan large has 4 vCPUs: set BERTH_LARGEST_HOST_VCPUS/,
  );
});
