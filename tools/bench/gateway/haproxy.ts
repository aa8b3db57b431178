import { spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { EngineAddress } from '../../../src/core/hypervisor/network.ts';
import { createServerRequest } from '../../../src/certificates/server-certificate.ts';
import { stopChild } from '../lib/child-process.ts';

/**
 * Debian's HAProxy in front of one engine, with what the gateway does for it: mutual TLS by the same authorities,
 * TCP behind it. One thread, as the gateway has; besides, its own defaults.
 * @param parts.directory for its configuration and its key, of our own.
 * @param parts.sign has the broker's authority sign a request for a certificate, as a gateway does.
 * @param parts.uid the user it becomes: the gateway's, whom alone the firewall lets through.
 */
export async function startHaproxy(parts: {
  directory: string;
  port: number;
  engine: EngineAddress;
  clientAuthority: string;
  sign: (requestPem: string) => Promise<string>;
  uid: number;
}): Promise<{ pid: number; stop(): Promise<void> }> {
  const { requestPem, privateKeyPem } = await createServerRequest('bench-haproxy');
  const certificate = await parts.sign(requestPem);
  const file = (name: string) => path.join(parts.directory, name);
  await writeFile(file('server.pem'), `${certificate}\n${privateKeyPem}\n`, { mode: 0o600 });
  await writeFile(file('clients.pem'), parts.clientAuthority, { mode: 0o600 });
  await writeFile(
    file('haproxy.cfg'),
    `global
  nbthread 1
  maxconn 4000
  uid ${parts.uid}
  gid ${parts.uid}
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen gateway
  bind 127.0.0.1:${parts.port} ssl crt ${file('server.pem')} ca-file ${file('clients.pem')} verify required ssl-min-ver TLSv1.2
  server engine ${parts.engine.host}:${parts.engine.port}
`,
    { mode: 0o600 },
  );
  const child = spawn('haproxy', ['-db', '-f', file('haproxy.cfg')], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(-4000)));
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', reject);
  }).catch((cause: unknown) => {
    throw new Error('haproxy can not be run: install it (npm run bench does, as root on Debian)', { cause });
  });
  return {
    get pid() {
      if (child.exitCode !== null) throw new Error(`haproxy has ended: ${said}`);
      return child.pid ?? 0;
    },
    stop: () => stopChild(child, 'SIGTERM'),
  };
}
