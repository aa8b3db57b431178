/**
 * Timeouts of questions to guests, in milliseconds. A restored guest answers within tenths of a second and one that
 * boots is asked again, but on a busy node that emulates it an answer can take a second or two.
 */
export const agentTimeoutMs = 2_000;
/** The agent may search all of the engine's memory; it completes that even if nobody waits any more. */
export const publishTimeoutMs = 10_000;
export const engineTimeoutMs = 3_000;
