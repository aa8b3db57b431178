/**
 * How long an operation stays with a worker that shows no sign of life, and a host with a process that acts on
 * it; in milliseconds. Afterwards others take over.
 */
export const leaseMs = 6_000;
