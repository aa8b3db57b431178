import { spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { EngineAddress } from '../../../src/core/hypervisor/network.ts';
import { createServerRequest } from '../../../src/certificates/server-certificate.ts';
import { stopChild } from '../lib/child-process.ts';

/**
 * Debian's HAProxy in front of one engine, configured like the gateway: mutual TLS with the same CAs, plain
 * TCP to the engine, one thread; its defaults for everything else.
 * @param options.directory for its configuration and key.
 * @param options.sign lets the broker's CA sign a certificate request, as for a gateway.
 * @param options.uid the gateway's user, the only one that the firewall lets through.
 */
export async function startHaproxy(options: {
  directory: string;
  port: number;
  engine: EngineAddress;
  clientCa: string;
  sign: (requestPem: string) => Promise<string>;
  uid: number;
}): Promise<{ pid: number; stop(): Promise<void> }> {
  const { requestPem, privateKeyPem } = await createServerRequest('bench-haproxy');
  const certificate = await options.sign(requestPem);
  const file = (name: string) => path.join(options.directory, name);
  await writeFile(file('server.pem'), `${certificate}\n${privateKeyPem}\n`, { mode: 0o600 });
  await writeFile(file('clients.pem'), options.clientCa, { mode: 0o600 });
  await writeFile(
    file('haproxy.cfg'),
    `global
  nbthread 1
  maxconn 4000
  uid ${options.uid}
  gid ${options.uid}
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen gateway
  bind 127.0.0.1:${options.port} ssl crt ${file('server.pem')} ca-file ${file('clients.pem')} verify required ssl-min-ver TLSv1.2
  server engine ${options.engine.host}:${options.engine.port}
`,
    { mode: 0o600 },
  );
  const child = spawn('haproxy', ['-db', '-f', file('haproxy.cfg')], { stdio: ['ignore', 'ignore', 'pipe'] });
  let output = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (output = (output + text).slice(-4000)));
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', reject);
  }).catch((cause: unknown) => {
    throw new Error("haproxy can't be started: install it (as root on Debian, npm run bench does)", {
      cause,
    });
  });
  return {
    get pid() {
      if (child.exitCode !== null) throw new Error(`haproxy has ended: ${output}`);
      return child.pid ?? 0;
    },
    stop: () => stopChild(child, 'SIGTERM'),
  };
}
