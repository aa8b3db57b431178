/**
 * Whether a user that has `own` of the `used` units may take another: only while it has less than there is left. So a
 * single user gets at most half of the limit, two get a third each, and there is always room for the next one (like the
 * dynamic thresholds of shared-memory switches).
 */
export const leavesShare = (own: number, used: number, limit: number): boolean => own < limit - used;
