/** The slot in which templates are made, one at a time; hosts have slots from 1. */
export const templateSlot = 0;

/** Interface names inside each host's namespace: its end of the link to the node, and the guest's network card. */
export const uplink = 'uplink';
export const tap = 'tap0';

/** Prefix of the node's ends of all hosts' links; with the slot at most 15 characters (IFNAMSIZ). */
export const vethPrefix = (site: string) => `bh${site}s`;
