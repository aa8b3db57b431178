/**
 * How long an ended operation or unbound binding can still be asked for, in milliseconds, so that a platform that was
 * away finds it. The specification names no time; at least seven days are promised (docs/osb.md 15). Afterwards only
 * the id stays, permanently, and the answer is 410.
 */
export const operationRetentionMs = 30 * 24 * 3600 * 1000;
