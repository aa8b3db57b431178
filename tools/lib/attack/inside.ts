import type { Credentials } from '../../../src/http/osb/credentials-body.ts';
import { busyboxTree, dockerFor } from '../docker.ts';

/** Address of RFC 5737 to which the flows go: nobody answers there. */
const nobody = '192.0.2.1';

/** Runs with the guest's perl, until it is killed. Both loops continue after an error: the disk is full, or a limit holds. */
const program = `
use Socket;
fork or flows();
my $block = 'x' x 1048576;
while (1) {
  open(my $file, '>', '/var/tmp/attack') or next;
  for (1 .. 256) { syswrite($file, $block) }
  syscall(74, fileno $file); # fsync
}
sub flows {
  while (1) {
    for my $port (1 .. 60000) {
      socket(my $socket, PF_INET, SOCK_DGRAM, 0) or next;
      send($socket, 'x', 0, sockaddr_in($port, inet_aton('${nobody}')));
    }
  }
}
`;

/**
 * Lets the guest of each binding write to its disk and begin flows as fast as it can, as its root may.
 * @returns a function that ends that.
 * @throws Error if docker can't start it.
 */
export async function attackFromInside(credentials: readonly Credentials[]): Promise<() => Promise<void>> {
  const tree = await busyboxTree();
  const dockers = await Promise.all(credentials.map(dockerFor));
  const stop = async () => {
    await Promise.all(
      dockers.map(async (docker) => {
        await docker.run(['rm', '-f', 'attack']);
        await docker.dispose();
      }),
    );
  };
  try {
    for (const docker of dockers) {
      await must(docker.run(['import', '-', 'attack:1'], tree));
      const container = ['--detach', '--name=attack', '--privileged', '--network=host', '--volume=/:/host'];
      const perl = ['/bin/busybox', 'chroot', '/host', '/usr/bin/perl', '-e', program];
      await must(docker.run(['run', ...container, 'attack:1', ...perl]));
    }
    return stop;
  } catch (error) {
    await stop();
    throw error;
  }
}

async function must(outcome: ReturnType<Awaited<ReturnType<typeof dockerFor>>['run']>): Promise<void> {
  const { code, stderr } = await outcome;
  if (code !== 0) throw new Error(`docker failed: ${stderr}`);
}
