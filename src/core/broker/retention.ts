/**
 * How long after its end an instance's or a binding's last operation can be asked for, in milliseconds: platforms
 * that were away come back to it. The specification names no time; seven days are promised (docs/osb.md 15). Later
 * only the id is left, which is never forgotten, and the answer is 410.
 */
export const keepOperationsMs = 30 * 24 * 3600 * 1000;
