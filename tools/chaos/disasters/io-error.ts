import { randomBytes } from 'node:crypto';
import https from 'node:https';
import { pack } from 'tar-stream';
import type { Credentials } from '../../../src/http/osb/credentials-body.ts';
import { withQmp } from '../../../src/hypervisors/qemu/launch/qmp.ts';
import { until } from '../../lib/until.ts';
import { tryToConnect } from '../engine-client.ts';
import type { ChaosInstallation } from '../installation.ts';
import type { Resident } from '../residents.ts';
import type { Disaster } from './disaster.ts';

/** More than a guest writes back later. */
const writtenMib = 192;

/** A tenant writes while the node's disk is full: QEMU stops the VM in the middle of a write (`io-error`). */
export const ioError: Disaster = {
  name: 'io-error',
  impossible({ settings, disk }) {
    if (settings.hypervisor !== 'qemu') return 'simulated hosts have no disk';
    return disk === undefined
      ? 'no file system could be mounted, which needs root and loop devices'
      : undefined;
  },
  async strike({ site, residents, random, patienceMs }) {
    const victim = random.pick(residents.all());
    const port = random.pick(site.gatewayPorts);
    const isAccepted = async () => (await tryToConnect(port, victim.credentials)) === 'accepted';
    await until('the host is awake', patienceMs, isAccepted);
    await site.disk?.fill();
    const stopWriting = write(port, victim.credentials);
    try {
      await until('QEMU has stopped the VM', patienceMs, async () => {
        return (await statusOf(site, victim)) === 'io-error';
      });
    } finally {
      stopWriting();
      await site.disk?.free();
    }
    await until('Postgres runs again', patienceMs, async () => {
      await site.postgres.ensureRunning();
      return true;
    });
    // Without help of an operator.
    await until('the VM continues, and its engine answers', patienceMs, isAccepted);
  },
};

const statusOf = async (site: ChaosInstallation, { hostId }: Resident) => {
  const socket = `/run/berth-${site.id}/hosts/${hostId}/qmp.sock`;
  const answer = await withQmp(socket, (qmp) => qmp.execute('query-status'), { timeoutMs: 5_000 });
  return (answer as { status: string }).status;
};

/** Imports an image of random bytes, which the engine writes to the host's disk. @returns a function that ends it. */
function write(port: number, { ca, cert, key }: Credentials): () => void {
  const request = https.request({
    ...{ host: '127.0.0.1', port, ca, cert, key, servername: 'localhost', agent: false, method: 'POST' },
    ...{ path: '/images/create?fromSrc=-&repo=filler', headers: { 'Content-Type': 'application/x-tar' } },
  });
  request.on('error', () => undefined).on('response', (response) => response.resume());
  const tar = pack();
  tar.entry({ name: 'filler' }, randomBytes(writtenMib * 1024 ** 2));
  tar.finalize();
  tar.on('error', () => undefined).pipe(request);
  return () => {
    tar.destroy();
    request.destroy();
  };
}
