/** Limits of the OSB and management listeners. They are not settings: platforms stay far below them. */

/** In bytes. A catalog's schemas have at most 64 kB, so parameters that satisfy one are much smaller. */
export const maxBodyBytes = 256 * 1024;
/** Levels of objects and arrays in a body; bounds the recursion of functions that walk through it. */
export const maxBodyDepth = 64;
/** All headers of a request together, including the request line. */
export const maxHeaderBytes = 16 * 1024;
export const maxHeaders = 100;
/** Of an error or an operation, in characters. */
export const longestDescription = 2_000;
/** In milliseconds: the OSB API answers within this time (docs/osb.md 7). */
export const longestAnswerMs = 29_000;
/** The share of it that is reserved for writing the answer's row to the audit trail. */
export const auditShare = 0.1;
/** In milliseconds: how long an answer of the management API waits for that row. */
export const longestAuditMs = longestAnswerMs * auditShare;
/** Connections of one listener; for further ones, others are closed (connection-limit.ts). */
export const maxConnections = 2_000;

/** In milliseconds, from the opening of the connection, also if nothing is ever sent on it. */
export interface Timeouts {
  readonly tlsHandshake: number;
  readonly headers: number;
  /** Headers and body. */
  readonly request: number;
  /** Interval at which the two above are checked. */
  readonly checkEvery: number;
  /** Between two requests. */
  readonly keepAlive: number;
  /** Neither side has sent anything, as if a client does not read its answer. Longer than any answer may take. */
  readonly silence: number;
}

export const usualTimeouts: Timeouts = {
  tlsHandshake: 10_000,
  headers: 10_000,
  request: 30_000,
  checkEvery: 2_000,
  keepAlive: 60_000,
  silence: 60_000,
};
