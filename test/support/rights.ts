import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';

const execute = promisify(execFile);

/** What the kernel lets a process do, as proc(5) tells it. */
export interface Rights {
  /** Real, effective, saved and file system user id. */
  readonly uids: readonly number[];
  readonly gids: readonly number[];
  readonly groups: readonly number[];
  /** Inheritable, permitted, effective and ambient capabilities that it has, as hexadecimal masks; none of them empty. */
  readonly capabilities: readonly string[];
  /** Whether a program with the set-user-ID bit, or with capabilities, can give it any. */
  readonly canGain: boolean;
}

export async function rightsOf(pid: number): Promise<Rights> {
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

/** In perl, since it must run as a user who can not read this project. */
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
 * Tries to open files, or to connect to sockets, with the user and groups that a process has.
 * @param acts such as `read /etc/shadow`, `write FILE`, `connect SOCKET`.
 * @returns a line each: `done ACT`, `refused ACT` for want of a right, or `failed: WHY ACT`.
 */
export async function tryAs({ uids, gids, groups }: Rights, acts: readonly string[]): Promise<string[]> {
  const { stdout } = await execute('setpriv', [
    ...[`--reuid=${uids[0] ?? ''}`, `--regid=${gids[0] ?? ''}`],
    groups.length > 0 ? `--groups=${groups.join(',')}` : '--clear-groups',
    ...['perl', '-e', attempts, ...acts],
  ]);
  return stdout.trimEnd().split('\n');
}
