/**
 * Takes root's rights from this process for good, once everything that needs them (secrets, modules) has
 * been read: api and gateway run as ordinary users. Does nothing where we are not root.
 * @throws Error where a right is left.
 */
export function dropPrivileges(uid: number): void {
  if (process.getuid?.() !== 0) return;
  process.setgroups?.([]);
  process.setgid?.(uid);
  process.setuid?.(uid);
  if (process.getuid() !== uid || process.geteuid?.() !== uid || process.getegid?.() !== uid) {
    throw new Error(`root's rights could not be given up for user id ${uid}`);
  }
}
