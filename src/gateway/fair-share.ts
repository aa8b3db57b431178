/**
 * Whether someone who has `own` of the `used` units may take another: only while that is less than what is left.
 * So one alone gets at most half of the limit, two a third each, and nobody the last part: the next one
 * finds room (the dynamic thresholds of shared-memory switches).
 */
export const leavesShare = (own: number, used: number, limit: number): boolean => own < limit - used;
