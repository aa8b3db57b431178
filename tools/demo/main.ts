import { randomUUID } from 'node:crypto';
import { siteId } from '../../src/config/secrets.ts';
import { readSettings, type Settings, SettingsError } from '../../src/config/settings.ts';
import type { Credentials } from '../../src/http/osb/credentials-body.ts';
import { busyboxTree, type Docker, dockerFor, type Outcome } from '../lib/docker.ts';
import { createOutsidePeer } from '../lib/outside-peer.ts';
import { connectPlatform, type Platform, PlatformError } from '../lib/platform.ts';
import { isAboutTemplate, residueOf } from '../lib/residue.ts';
import { BrokenPromise, createSteps, promised, type Steps } from './steps.ts';
import { TimeoutError, withTimeout } from '../../src/lib/with-timeout.ts';

const usage = `Usage: npm run demo

Plays a platform and two tenants against a running broker (npm start) with the real docker CLI. Fails if a promise does
not hold. Uses the broker's settings.
`;

const image = 'busybox:demo';

interface Stage {
  readonly settings: Settings;
  readonly platform: Platform;
  readonly steps: Steps;
  /** Undone in reverse order, also after a failure. */
  readonly cleanUp: (() => Promise<void>)[];
}

interface TenantHost {
  readonly name: string;
  readonly instanceId: string;
  readonly bindingId: string;
  readonly credentials: Credentials;
  readonly docker: Docker;
}

async function main(): Promise<void> {
  if (process.argv.length > 2) {
    process.stdout.write(usage);
    process.exitCode = process.argv.includes('--help') ? 0 : 2;
    return;
  }
  const settings = readSettings();
  const steps = createSteps(process.stdout);
  const cleanUp: (() => Promise<void>)[] = [];
  const interrupted = new Promise<never>((_, reject) => {
    process.once('SIGINT', () => {
      reject(new BrokenPromise('interrupted'));
    });
  });
  try {
    await Promise.race([
      play({ settings, platform: await connectPlatform(settings), steps, cleanUp }),
      interrupted,
    ]);
    steps.say('\nEverything worked as promised.');
  } finally {
    for (const act of cleanUp.reverse()) await act().catch(() => undefined);
  }
}

async function play(stage: Stage): Promise<void> {
  const { platform, steps } = stage;
  if (platform.simulated) {
    steps.say('SIMULATED: no VMs exist. Containers, published ports and isolation are skipped.\n');
  }
  await steps.step('read the catalog', () => Promise.resolve(`first plan ${platform.offering.planName}`));
  const a = await newHost(stage, 'A');
  const b = await newHost(stage, 'B');
  await steps.step('docker version as tenant A', async () =>
    must(await a.docker.run(['version', '--format', 'engine {{.Server.Version}}'])).trim(),
  );
  await steps.step("A's certificate leads to A's host and B's to B's", async () => {
    const ids = await Promise.all(
      [a, b].map(async ({ docker }) => must(await docker.run(['info', '--format', '{{.ID}}']))),
    );
    promised(ids[0] !== ids[1], 'both certificates lead to the same engine');
  });
  if (!platform.simulated) await runContainers(stage, a, b);
  await unbindAndCheck(stage, a);
  await deleteAndCheck(stage, a, b);
}

async function newHost(stage: Stage, name: string): Promise<TenantHost> {
  const { platform, steps, cleanUp } = stage;
  const instanceId = `demo-${randomUUID()}`;
  const bindingId = `demo-${randomUUID()}`;
  cleanUp.push(() => platform.remove(instanceId));
  await steps.step(`create a host for tenant ${name}`, () => platform.create(instanceId, `demo-org-${name}`));
  const credentials = await steps.step(`bind it for an app of tenant ${name}`, () =>
    platform.bind(instanceId, bindingId),
  );
  const docker = await dockerFor(credentials);
  cleanUp.push(() => docker.dispose());
  return { name, instanceId, bindingId, credentials, docker };
}

const firstPort = ({ credentials }: TenantHost) => Number(credentials.published_ports.split('-')[0]);

async function runContainers(stage: Stage, a: TenantHost, b: TenantHost): Promise<void> {
  const { settings, steps, cleanUp, platform } = stage;
  const port = firstPort(a);
  await steps.step(
    'docker import of a busybox tree',
    async () => void must(await a.docker.run(['import', '-', image], await busyboxTree())),
  );
  await steps.step(`docker run -d -p ${port}:80 of a web server`, async () => {
    const server = ['/bin/httpd', '-f', '-p', '80', '-h', '/www'];
    must(await a.docker.run(['run', '-d', '--name', 'web', '-p', `${port}:80`, image, ...server]));
  });
  const outside = await createOutsidePeer();
  cleanUp.push(() => outside.remove());
  await steps.step('fetch its page from another network namespace', async () => {
    const page = await outside.run('curl', '-s', '-m', '10', `http://${settings.externalHost}:${port}/`);
    promised(page.includes('hello from a container'), `unexpected page: ${page}`);
  });
  await steps.step("B's credentials do not show A's container", async () => {
    const names = must(await b.docker.run(['ps', '-a', '--format', '{{.Names}}']));
    promised(names === '', `B sees ${names}`);
  });
  const engineOfB = (await platform.hosts()).find(({ instance }) => instance === b.instanceId)?.engine;
  await steps.step("from inside A, try B's host, the node and its network", async () => {
    const targets = [
      (engineOfB ?? '').replace(':', ' '),
      `${settings.externalHost} ${firstPort(b)}`,
      `${settings.externalHost} ${settings.gatewayPort}`,
      `${settings.externalHost} ${settings.port}`,
      '169.254.169.254 80',
    ];
    const probe = targets
      .map((target) => `echo | nc -w 2 ${target} >/tmp/answer && echo "${target}"`)
      .join('; ');
    // The control must answer, or the probe would prove nothing.
    const control = `echo | nc -w 2 127.0.0.1 9999 >/tmp/answer && echo control`;
    const script = `nc -l -p 9999 & sleep 1; ${probe}; ${control}; true`;
    const answered = must(
      await a.docker.run(['run', '--rm', '--network', 'host', image, '/bin/sh', '-c', script]),
    );
    promised(answered.trim() === 'control', `reached: ${answered.trim()}`);
    return `${targets.length} addresses, none reachable`;
  });
}

async function unbindAndCheck(stage: Stage, a: TenantHost): Promise<void> {
  const { platform, steps } = stage;
  const logs = platform.simulated ? undefined : await followLogs(a);
  await steps.step('unbind A', () => platform.unbind(a.instanceId, a.bindingId));
  if (logs !== undefined) {
    await steps.step('the unbind cuts a running docker logs -f', () =>
      withTimeout(5_000, 'the end of docker logs -f', logs.ended),
    );
  }
  await steps.step("A's credentials are refused from now on", async () => {
    const refused = await a.docker.run(['ps']);
    promised(refused.code !== 0, 'docker ps still works');
    return refused.stderr.trim().split('\n')[0] ?? '';
  });
}

async function followLogs(a: TenantHost): Promise<{ ended: Promise<void> }> {
  const command = ['/bin/sh', '-c', 'echo talking; exec sleep 1000'];
  must(await a.docker.run(['run', '-d', '--name', 'talk', image, ...command]));
  const logs = a.docker.follow(['logs', '-f', 'talk']);
  const ended = new Promise<void>((resolve) =>
    logs.once('close', () => {
      resolve();
    }),
  );
  await withTimeout(
    60_000,
    'the first line of docker logs -f',
    new Promise<void>((resolve) =>
      logs.stdout.once('data', () => {
        resolve();
      }),
    ),
  );
  return { ended };
}

async function deleteAndCheck(stage: Stage, a: TenantHost, b: TenantHost): Promise<void> {
  const { settings, platform, steps } = stage;
  const before = await platform.hosts();
  for (const host of [a, b]) {
    await steps.step(`delete the host of tenant ${host.name}`, () => platform.remove(host.instanceId));
  }
  await steps.step('nothing is left of them', async () => {
    const ours = before.filter(({ instance }) => [a, b].some(({ instanceId }) => instanceId === instance));
    const listed = (await platform.hosts()).filter(({ host }) => ours.some((one) => one.host === host));
    promised(listed.length === 0, 'the broker still lists a host');
    if (platform.simulated) return;
    const left = await residueOf(await siteId(settings));
    // Ignore what belongs to others: hosts of other tenants, and a template that is being made.
    const leftovers = left.filter((line) =>
      ours.some(
        ({ host, engine }) => line.includes(host) || line.includes(`${engine?.split(':')[0] ?? host} `),
      ),
    );
    promised(leftovers.length === 0, `left behind: ${leftovers.join('; ')}`);
    const alone = (await platform.hosts()).length === 0;
    const unexplained = left.filter((line) => !isAboutTemplate(line));
    if (alone) promised(unexplained.length === 0, `left behind: ${unexplained.join('; ')}`);
  });
}

/** The output of a docker command. @throws BrokenPromise if it failed. */
function must(outcome: Outcome): string {
  promised(outcome.code === 0, `docker failed: ${outcome.stderr.trim()}`);
  return outcome.stdout;
}

try {
  await main();
} catch (error) {
  const isExpected = [BrokenPromise, PlatformError, SettingsError, TimeoutError].some(
    (kind) => error instanceof kind,
  );
  const text =
    error instanceof Error ? (isExpected ? error.message : (error.stack ?? error.message)) : String(error);
  process.stderr.write(`\nberth: ${text}\n`);
  process.exitCode = 1;
}
