import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const execute = promisify(execFile);
const name = 'berth-postgres';
const environment = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' };

export interface SystemUser {
  readonly uid: number;
  readonly gid: number;
}

/**
 * The user that the embedded Postgres runs as: undefined for the current one if we are not root, else a system user,
 * made if it is missing. (`initdb` requires a user with a name, so a bare uid is not enough.)
 */
export async function postgresUser(): Promise<SystemUser | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  try {
    return await find();
  } catch {
    await execute(
      'useradd',
      [
        '--system',
        '--user-group',
        '--no-create-home',
        '--home-dir',
        '/nonexistent',
        '--shell',
        '/usr/sbin/nologin',
        name,
      ],
      { env: environment },
    );
    return find();
  }
}

async function find(): Promise<SystemUser> {
  const [uid, gid] = await Promise.all(
    ['-u', '-g'].map(async (what) => (await execute('id', [what, name], { env: environment })).stdout),
  );
  return { uid: Number(uid), gid: Number(gid) };
}
