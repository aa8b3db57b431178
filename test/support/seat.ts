/**
 * Who shares no port, network or user id with anybody else on the machine. A run of the tests has two seats, one for
 * each file of virtual machines that it runs at a time; runs of different `BERTH_TEST_SEAT` (0 to 2; 0 where unset)
 * have others, so that two checkouts can be tested side by side. 0 to 5.
 */
export const seat =
  readRun(process.env['BERTH_TEST_SEAT'] ?? '0') * 2 + (isOdd(process.env['VITEST_POOL_ID']) ? 0 : 1);

function readRun(value: string): number {
  if (!/^[0-2]$/.test(value)) throw new Error(`BERTH_TEST_SEAT is a number from 0 to 2, not "${value}"`);
  return Number(value);
}

/** vitest numbers those that run at the same time from 1. */
function isOdd(value = '1'): boolean {
  return Number(value) % 2 === 1;
}
