import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';

const execute = promisify(execFile);

/** A process's user, groups and capabilities, from /proc/PID/status (proc(5)). */
export interface ProcessPrivileges {
  /** Real, effective, saved and file system user id. */
  readonly uids: readonly number[];
  readonly gids: readonly number[];
  readonly groups: readonly number[];
  /** The non-empty ones of its inheritable, permitted, effective and ambient capability masks, hexadecimal. */
  readonly capabilities: readonly string[];
  /** Whether executing a set-user-ID program, or one with file capabilities, can add privileges (no_new_privs unset). */
  readonly canGain: boolean;
}

export async function privilegesOf(pid: number): Promise<ProcessPrivileges> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const words = (name: string) => {
    const line = new RegExp(`^${name}:(.*)$`, 'm').exec(status)?.[1];
    if (line === undefined) throw new Error(`the status of process ${pid} has no ${name}`);
    return line.trim().split(/\s+/).filter(Boolean);
  };
  return {
    uids: words('Uid').map(Number),
    gids: words('Gid').map(Number),
    groups: words('Groups').map(Number),
    capabilities: ['CapInh', 'CapPrm', 'CapEff', 'CapAmb']
      .flatMap(words)
      .filter((mask) => Number.parseInt(mask, 16) !== 0),
    canGain: words('NoNewPrivs')[0] !== '1',
  };
}

/** Perl, because it runs as a user that can't read this project. */
const attempts = `
  use Fcntl; use Socket;
  for (@ARGV) {
    my ($how, $file) = split / /, $_, 2;
    my ($s, $h);
    my $done = $how eq 'connect'
      ? socket($s, PF_UNIX, SOCK_STREAM, 0) && connect($s, pack_sockaddr_un($file))
      : sysopen($h, $file, $how eq 'read' ? O_RDONLY : O_WRONLY);
    print $done ? 'done' : $!{EACCES} ? 'refused' : "failed: $!", " $_\\n";
  }`;

/**
 * Tries to open files, or to connect to sockets, as the user and groups of a process.
 * @param acts such as `read /etc/shadow`, `write FILE`, `connect SOCKET`.
 * @returns a line for each act: `done ACT`, `refused ACT` (EACCES), or `failed: REASON ACT`.
 */
export async function tryAs(
  { uids, gids, groups }: ProcessPrivileges,
  acts: readonly string[],
): Promise<string[]> {
  const { stdout } = await execute('setpriv', [
    ...[`--reuid=${uids[0] ?? ''}`, `--regid=${gids[0] ?? ''}`],
    groups.length > 0 ? `--groups=${groups.join(',')}` : '--clear-groups',
    ...['perl', '-e', attempts, ...acts],
  ]);
  return stdout.trimEnd().split('\n');
}
