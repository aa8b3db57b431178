/**
 * How long the lease on an operation and the lock on a host last without a heartbeat, in milliseconds. Afterwards
 * another process takes over.
 */
export const leaseMs = 6_000;
