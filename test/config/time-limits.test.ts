import { afterEach, describe, expect, it, vi } from 'vitest';
import { readSettings, SettingsError } from '../../src/config/settings.ts';

const variable = 'BERTH_TIME_LIMIT_FACTOR';

/** The limits as a process that was started with this value has them. */
async function limitsWith(factor: string) {
  vi.stubEnv(variable, factor);
  vi.resetModules();
  return {
    ...(await import('../../src/config/time-limits.ts')),
    ...(await import('../../src/hypervisors/qemu/timeouts.ts')),
  };
}

describe('time limits', () => {
  afterEach(() => {
    vi.unstubAllEnvs();
    vi.resetModules();
  });

  it('time limits: are those of the code by default', async () => {
    const { timeLimit, engineTimeoutMs } = await limitsWith('');
    expect([timeLimit(1_000), engineTimeoutMs]).toEqual([1_000, 3_000]);
    expect(readSettings({}).timeLimitFactor).toBe(1);
  });

  // Fails if a limit of src/hypervisors/qemu/timeouts.ts is a plain number.
  it('time limits: of questions to guests are multiplied by the setting', async () => {
    const { timeLimit, agentTimeoutMs, publishTimeoutMs, engineTimeoutMs } = await limitsWith(' 8 ');
    expect(timeLimit(1_500)).toBe(12_000);
    expect([agentTimeoutMs, publishTimeoutMs, engineTimeoutMs]).toEqual([16_000, 80_000, 24_000]);
    expect(readSettings({ [variable]: '8' }).timeLimitFactor).toBe(8);
  });

  it.each(['0', '21', '2.5', '-1', 'slow'])('time limits: the factor %s is refused', async (text) => {
    expect(() => readSettings({ [variable]: text })).toThrow(SettingsError);
    expect((await limitsWith(text)).timeLimit(1_000)).toBe(1_000);
  });
});
