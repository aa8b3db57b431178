/** Scripts for a container that mounts paths of its host: what it changes there, and what is left after a restart. */

const paths = ['/data/web', '/home/me/web', '/etc/web', '/usr/local/share/web'];

/** Options of `docker run`. The paths don't exist before. */
export const bindMounts: readonly string[] = [
  ...paths.map((path) => `${path}:/mounts${path}`),
  '/:/host',
].flatMap((bind) => ['-v', bind]);

/**
 * Writes to the bind mounts, and does what would alter the engine's root if it lasted: shadows, replaces and removes names
 * of the verified root, in its view and in the folders on the data disk that it is made of.
 */
export const tamper = `
  for path in ${paths.join(' ')}; do echo kept >/mounts$path/file; done
  cd /host/etc
  echo shadowed >passwd; busybox rm os-release; echo evil >ld.so.preload
  busybox rm -r apparmor.d; busybox mkdir apparmor.d
  busybox mkdir -p ssl/added && echo added >ssl/added/file; busybox chmod 700 ssl
  cd /host/var/lib/berth/root
  busybox rm bin; busybox mkdir bin; echo evil >bin/sh; busybox ln -s /data home/link
  busybox sync`;

/** Prints what {@link tamper} has changed. */
export const look = `
  cd /host/etc
  head -c 5 passwd; echo; [ -s os-release ] && [ -d apparmor.d/tunables ] && echo there; [ -e ld.so.preload ] || echo none
  busybox stat -c %a ssl; busybox readlink ../bin; cat ssl/added/file; busybox readlink ../home/link
  for path in ${paths.join(' ')}; do cat /mounts$path/file; done`;

/**
 * What {@link look} prints if only additions have lasted. Fails with a berth-engine-root that keeps what
 * shadows the verified root.
 */
export const untouched = ['root:', 'there', 'none', '755', 'usr/bin', 'added', '/data']
  .concat(paths.map(() => 'kept'))
  .join('\n');
