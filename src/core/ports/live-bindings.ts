import type { EngineAddress } from '../hypervisor/network.ts';

/** What the gateway must know of one binding whose certificate may connect. */
export interface LiveBinding {
  /** UUID of the binding's row. */
  readonly bindingId: string;
  /** Serial of its client certificate: lower-case hexadecimal, no leading zeros. */
  readonly serial: string;
  /** After this moment the certificate is refused, resumed sessions and open streams included. */
  readonly expiresAt: Date;
  readonly hostId: string;
  readonly tenantId: string;
  /** Where the host's engine listens; undefined while the host has no address (it is being restarted). */
  readonly engine: EngineAddress | undefined;
  /** The host is paused or suspended: its engine answers once it has been woken. */
  readonly asleep: boolean;
  /** When it was last refused to wake it, for want of memory; another moment with each refusal. */
  readonly wakeRefusedAt?: Date | undefined;
}

/** What the gateway hears of bindings, in the order in which it was committed. */
export interface BindingEvents {
  /** The binding may have changed in any way: read it again. */
  changed(bindingId: string): void;
  /** The connection was lost, and events with it: nothing known is certain until it was read again. */
  lost(reason: Error): void;
}

/** Part of its lease that a gateway uses, so that it cuts before others assume that it has. */
export const usablePartOfLease = 0.9;

/**
 * The gateway's view of Postgres. All of it goes over the one connection that also hears the events, so
 * that a lease can't be renewed for long if that connection has silently stopped hearing.
 */
export interface LiveBindingsSource {
  /**
   * Connects, registers the gateway, and begins to listen. Ends within 15 s, one way or the other.
   * @throws where Postgres can't be reached; may be called again, after {@link close}.
   */
  open(events: BindingEvents): Promise<void>;

  /** Closes the connection, also one that hangs: queries that were sent over it may remain unanswered. */
  close(): Promise<void>;

  /** Those of these bindings that are live now, in any order. */
  read(bindingIds: readonly string[]): Promise<readonly LiveBinding[]>;

  /** The live bindings that these certificates belong to, in any order; none for a serial that has none. */
  readBySerial(serials: readonly string[]): Promise<readonly LiveBinding[]>;

  /** Asks for a host to be woken; the bindings of it change when it is. A host that is awake takes no harm. */
  wake(hostId: string): Promise<void>;

  /**
   * Takes this gateway's lease, even one that has run out. The lease counts from before the call was made.
   * @param leaseMs length of the lease in milliseconds.
   * @returns a function that says how many milliseconds ago this lease was last renewed beside {@link renewLease};
   * Infinity if it never was.
   */
  takeLease(leaseMs: number): Promise<() => number>;

  /**
   * Renews the lease, which counts from before the call was made.
   * @throws if it has run out in Postgres: unbinds may have been answered without this gateway since then.
   */
  renewLease(leaseMs: number): Promise<void>;

  /**
   * Tells that everything of these bindings' has been refused and cut here since their revocations were heard.
   * It is called for bindings that are not live any more, and may be called again for the same.
   */
  acknowledge(bindingIds: readonly string[]): Promise<void>;

  /** Gives the lease back on an orderly stop, once everything is cut, so that no unbind waits for it. */
  releaseLease(): Promise<void>;
}
