/** A smaller error is left alone: it is within what a busy guest makes of a measurement. Milliseconds. */
const toleranceMs = 20;
/** An error that can't be excluded to be larger is corrected, although it may be smaller. Milliseconds. */
const acceptedMs = 500;
const measurements = 4;

/** By how much a guest's clock is ahead of the node's: somewhere between the two, in milliseconds. */
interface Bounds {
  readonly least: number;
  readonly most: number;
}

/**
 * Reads a guest's clock and returns its time, in milliseconds since 1970; then changes it by `adjustMs`, if given.
 * Undefined if the guest does not answer.
 */
export type ReadClock = (adjustMs?: number) => Promise<number | undefined>;

/**
 * Corrects a guest's clock. The guest has read it at some moment between request and answer, so an error is known with a
 * precision of half a round trip; several measurements narrow it down. The correction is relative, so its own delay
 * does not matter.
 * @returns false if the guest does not answer.
 */
export async function correctClock(read: ReadClock): Promise<boolean> {
  let known: Bounds | undefined;
  for (let count = 0; count < measurements && !(known !== undefined && isPrecise(known)); count += 1) {
    const measured = await measure(read);
    if (measured === undefined) return false;
    known = known === undefined ? measured : narrow(known, measured);
  }
  if (known === undefined || !needsCorrection(known)) return true;
  return (await read(-Math.round((known.least + known.most) / 2))) !== undefined;
}

async function measure(read: ReadClock): Promise<Bounds | undefined> {
  const askedAt = Date.now();
  // The node's own clock may be set in between.
  const begun = performance.now();
  const time = await read();
  const roundTripMs = performance.now() - begun;
  return time === undefined ? undefined : { least: time - askedAt - roundTripMs, most: time - askedAt };
}

const isPrecise = ({ least, most }: Bounds) => most - least <= 2 * toleranceMs;

/** What agrees with both; the later one alone if nothing does, because a clock was set in between. */
function narrow(one: Bounds, later: Bounds): Bounds {
  const both = { least: Math.max(one.least, later.least), most: Math.min(one.most, later.most) };
  return both.least <= both.most ? both : later;
}

const needsCorrection = ({ least, most }: Bounds) =>
  least > toleranceMs || most < -toleranceMs || most > acceptedMs || least < -acceptedMs;
