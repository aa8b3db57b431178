import type { JsonObject } from '../model/json.ts';

/** An action, or an attempt at one. Never contains a secret: of parameters, only their names. */
export interface AuditEntry {
  /** `platform`: a request to the OSB API. `operator`: one to the management API. `berth`: what follows from them. */
  readonly actor: 'platform' | 'operator' | 'berth';
  /** Name of the platform whose credential was used; undefined if it was wrong. */
  readonly platform?: string | undefined;
  /** The user, as the platform says (OSB 2.17, "Originating Identity"). */
  readonly identity?: OriginatingIdentity | undefined;
  readonly action: string;
  /** The platform's ids. */
  readonly instanceId?: string | undefined;
  readonly bindingId?: string | undefined;
  /** Peer address of the connection: a proxy's, if there is one. */
  readonly remoteAddress?: string | undefined;
  readonly requestId?: string | undefined;
  /** HTTP status of the answer. */
  readonly status?: number | undefined;
  readonly outcome: 'succeeded' | 'accepted' | 'refused' | 'failed';
  readonly error?: string | undefined;
  readonly detail?: JsonObject | undefined;
}

export interface AuditRecord extends AuditEntry {
  readonly at: Date;
  /** The database role that wrote it. */
  readonly recordedBy: string;
}

/** `X-Broker-API-Originating-Identity`, decoded. */
export interface OriginatingIdentity {
  readonly platform: string;
  readonly value: JsonObject;
}

export interface AuditQuery {
  /** The platform's id of an instance. */
  readonly instanceId: string | undefined;
  readonly since: Date | undefined;
  /** How many rows at most: the newest ones. */
  readonly limit: number;
}

/** The retention of the audit trail: the only way to delete rows of it, for the owner of the tables only. */
export interface AuditRetention {
  /**
   * @param days at least 30.
   * @returns the number of deleted rows.
   */
  deleteOlderThan(days: number): Promise<number>;
}

/** The append-only audit trail. */
export interface AuditTrail {
  /** Adds a row; values that are too long are truncated. */
  record(entry: AuditEntry): Promise<void>;
  /** The newest matching rows, oldest first. */
  list(query: AuditQuery): Promise<readonly AuditRecord[]>;
}
