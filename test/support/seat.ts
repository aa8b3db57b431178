/**
 * Which seat this run of the tests takes on the machine: runs of different seats share no port, network or
 * user id, so that two checkouts can be tested side by side. `BERTH_TEST_SEAT`, 0 to 5; 0 where unset.
 */
export const seat = readSeat(process.env['BERTH_TEST_SEAT'] ?? '0');

function readSeat(value: string): number {
  if (!/^[0-5]$/.test(value)) throw new Error(`BERTH_TEST_SEAT is a number from 0 to 5, not "${value}"`);
  return Number(value);
}
