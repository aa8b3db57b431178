/**
 * Drops root for good. api and gateway call it once everything that needs root (secrets, modules) has been read.
 * Does nothing if the process does not run as root.
 * @throws Error if a user or group id of root remains.
 */
export function dropPrivileges(uid: number): void {
  if (process.getuid?.() !== 0) return;
  process.setgroups?.([]);
  process.setgid?.(uid);
  process.setuid?.(uid);
  if (process.getuid() !== uid || process.geteuid?.() !== uid || process.getegid?.() !== uid) {
    throw new Error(`could not drop root and become user ${uid}`);
  }
}
