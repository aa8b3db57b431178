import {
  burstBytes,
  dripMs,
  hostileAnswers,
  type HostileAnswer,
  type Script,
} from '../../lib/hostile-engine.ts';
import { busyboxTree, dockerFor } from '../../lib/docker.ts';
import { until } from '../../lib/until.ts';
import { tryToConnect } from '../engine-client.ts';
import type { Resident } from '../residents.ts';
import type { Scene } from './disaster.ts';

const port = 2_376;
/** A request to this path ends the program. */
const endPath = '/the-honest-engine';

/**
 * Runs with the guest's perl in a privileged container: takes the connections that gateways and workers open to the engine,
 * and answers by a script (hostile-engine.ts), whose parts are its arguments in hexadecimal.
 */
const program = `
use Socket;
my ($first, $forever, $drips, $end) = map { pack 'H*', $_ } @ARGV;
my @rule = (qw(PREROUTING -i eth0 -p tcp --dport 2375 -j REDIRECT --to-ports), ${port});
$SIG{CHLD} = $SIG{PIPE} = 'IGNORE';
socket(my $server, PF_INET, SOCK_STREAM, 0) or die $!;
setsockopt($server, SOL_SOCKET, SO_REUSEADDR, 1);
bind($server, sockaddr_in(${port}, INADDR_ANY)) && listen($server, 100) or die $!;
system('/usr/sbin/iptables', '-t', 'nat', '-I', @rule);
while (1) {
  accept(my $client, $server) or next;
  next if fork;
  my $request = '';
  while ($request !~ /\r\n\r\n/) { sysread($client, $request, 4096, length $request) or exit }
  if ($request =~ m{^GET ${endPath} }) {
    system('/usr/sbin/iptables', '-t', 'nat', '-D', @rule);
    syswrite($client, "HTTP/1.1 204 No Content\r\n\r\n");
    kill 'KILL', getppid;
    exit;
  }
  syswrite($client, $first);
  $forever x= int(${burstBytes} / length $forever) if $forever ne '' && !$drips;
  while ($forever ne '') { defined syswrite($client, $forever) or exit; select undef, undef, undef, ${dripMs / 1000} if $drips }
  setsockopt($client, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0)) if $end eq 'reset';
  if ($end eq '') { 1 while sysread($client, $request, 4096) }
  exit;
}
`;

/**
 * Lets the guest of a real host answer in place of its engine, by what a tenant can do: it runs a privileged container.
 * @returns a function that serves the engine again, unless the tenant has left.
 */
export async function replaceRealEngine(
  { site, residents, patienceMs }: Scene,
  attacker: Resident,
  answer: HostileAnswer,
): Promise<() => Promise<void>> {
  const { credentials, id } = attacker;
  const [gateway = 0] = site.gatewayPorts;
  const docker = await dockerFor(credentials);
  const must = async (args: readonly string[], input?: Buffer) => {
    const { code, stderr } = await docker.run(args, input);
    if (code !== 0) throw new Error(`docker ${args[0] ?? ''} of ${id} failed: ${stderr}`);
  };
  const isHonest = async () => (await tryToConnect(gateway, credentials)) === 'accepted';
  try {
    await until('the engine answers', patienceMs, isHonest);
    const { first, forever, drips, end }: Script = hostileAnswers[answer];
    const script = [first, forever, drips && 'drips', end].map((part) =>
      Buffer.from(part === undefined || part === false ? '' : part).toString('hex'),
    );
    await must(['import', '-', 'hostile:1'], await busyboxTree());
    const container = [
      '--detach',
      '--rm',
      '--name=hostile',
      '--privileged',
      '--network=host',
      '--volume=/:/host',
    ];
    const perl = ['/bin/busybox', 'chroot', '/host', '/usr/bin/perl', '-e', program, ...script];
    await must(['run', ...container, 'hostile:1', ...perl]);
    await until('the hostile engine answers', patienceMs, async () => !(await isHonest()));
  } finally {
    await docker.dispose();
  }
  return async () => {
    await until('the honest engine answers again', patienceMs, async () => {
      if (!residents.all().includes(attacker)) return true;
      await tryToConnect(gateway, credentials, endPath);
      return isHonest();
    });
  };
}
