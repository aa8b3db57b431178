/** What one client may ask of the OSB and management listeners. Nothing of it is a setting: platforms stay far below. */

/** A catalog's schemas are at most 64 kB, so no parameters that satisfy one come near this. */
export const maxBodyBytes = 256 * 1024;
/** Levels of objects and arrays in a body: whatever walks through one does so by recursion. */
export const maxBodyDepth = 64;
/** All headers of a request together, with its first line. */
export const maxHeaderBytes = 16 * 1024;
export const maxHeaders = 100;
/** How long an answer of the OSB API takes at the most, in milliseconds (docs/osb.md 7). */
export const longestAnswerMs = 29_000;
/** The share of it that is left for the answer's row in the audit trail. */
export const auditShare = 0.1;
/** How long an answer is held back for that row where nothing else bounds it; in milliseconds. */
export const longestAuditMs = longestAnswerMs * auditShare;
/** Connections of one listener; further ones are closed at once. */
export const maxConnections = 2_000;

/** In milliseconds. A connection counts from when it is opened, also where nothing is ever sent on it. */
export interface Timeouts {
  readonly tlsHandshake: number;
  readonly headers: number;
  /** Headers and body. */
  readonly request: number;
  /** How often the two above are looked after. */
  readonly checkEvery: number;
  /** Between two requests. */
  readonly keepAlive: number;
  /** Neither side has sent anything: a client that does not read its answer. Longer than any answer may take. */
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
