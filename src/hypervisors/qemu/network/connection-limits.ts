import type { HostLimits } from '../options.ts';

/**
 * How long a closed TCP connection stays in the tables of the node and of the host's namespace, in seconds: as long as
 * Linux keeps a reset one, instead of its 120 s of TIME_WAIT. `ct count` does not count closed connections, so this
 * limits them.
 */
export const closedSeconds = 10;

/** Name of the timeouts in rules, and its definition in the syntax of nft(8). They apply to connections that a rule gives them to. */
export const closedTimeout = `closed_${closedSeconds}s`;
export const closedTimeoutObject = `ct timeout ${closedTimeout} { protocol tcp; l3proto ip; policy = { time_wait: ${closedSeconds}, close: ${closedSeconds} }; }`;

/** New connections of a host per second and direction. The bucket is small, because it fills the tables without `ct count`. */
export function newConnections({ connections }: HostLimits): { perSecond: number; burst: number } {
  return {
    perSecond: Math.max(50, Math.ceil(connections / closedSeconds)),
    burst: Math.max(100, Math.ceil(connections / 4)),
  };
}

/**
 * Entries of the node's connection tracking table that one host can use at most, both directions together. In each
 * direction: open connections, as many that were open and have just been closed, and those that were opened and closed
 * within {@link closedSeconds}.
 */
export function mostTableEntries(limits: HostLimits): number {
  const { perSecond, burst } = newConnections(limits);
  return 2 * (2 * limits.connections + perSecond * closedSeconds + burst);
}
