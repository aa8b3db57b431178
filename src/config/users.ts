/** The user ids of an installation, in the order of BERTH_UID_BASE. */
export function userIds(uidBase: number) {
  return { api: uidBase, gateway: uidBase + 1, hosts: uidBase + 16 };
}
