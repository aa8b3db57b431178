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

/**
 * The gateway's view of Postgres. All of it goes over the one connection that also hears the events, so
 * that a lease can't be renewed on a connection that has silently stopped hearing.
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
   * Renews this gateway's lease. The lease counts from before the call was made.
   * @param leaseMs length of the lease in milliseconds.
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
