import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { onTestFinished } from 'vitest';
import type { IssuedCertificate } from '../../../src/core/ports/certificate-issuer.ts';

export interface CrowdOrders {
  readonly port: number;
  readonly ca: string;
  readonly certificate: Pick<IssuedCertificate, 'certificatePem' | 'privateKeyPem'>;
  /** Clients that finish the handshake and then are silent. */
  readonly idle: number;
  /** Clients that finish the handshake, ask for everything, and take nothing. */
  readonly stalled: number;
  /** Clients that connect and say nothing. */
  readonly silent: number;
  /** Clients that send what is no TLS, over and over. */
  readonly garbage: number;
}

/** Runs in a process of its own, so that what it uses is not counted as the gateway's. */
const program = `
const net = require('node:net'), tls = require('node:tls');
const { port, ca, certificate, idle, stalled, silent, garbage } = JSON.parse(require('node:fs').readFileSync(0, 'utf8'));
const at = { host: '127.0.0.1', port };
const keep = [];
const secureContext = tls.createSecureContext({ ca, cert: certificate.certificatePem, key: certificate.privateKeyPem });
const secure = (then) => new Promise((resolve) => {
  const socket = tls.connect({ ...at, secureContext, ca }, () => { then(socket); resolve(); });
  socket.on('error', resolve);
  keep.push(socket);
});
const plain = (then) => new Promise((resolve) => {
  const socket = net.connect(at, () => { then(socket); resolve(); });
  socket.on('error', resolve);
  keep.push(socket);
});
(async () => {
  for (let i = 0; i < idle; i += 20) await Promise.all(Array.from({ length: Math.min(20, idle - i) }, () => secure(() => {})));
  for (let i = 0; i < stalled; i += 1) await secure((socket) => { socket.pause(); socket.write('GET /everything HTTP/1.1\\r\\n\\r\\n'); });
  for (let i = 0; i < garbage; i += 1) await plain((socket) => { socket.write(Buffer.alloc(40000, i)); });
  for (let i = 0; i < silent; i += 1) await plain(() => {});
  console.log('all are there');
})();
`;

/** Starts a crowd of clients; resolves when all of them have connected. It goes away when the test ends. */
export async function startCrowd(orders: CrowdOrders): Promise<{ leave: () => void }> {
  const child = spawn(process.execPath, ['-e', program], { env: {}, stdio: ['pipe', 'pipe', 'inherit'] });
  const leave = () => {
    child.kill('SIGKILL');
  };
  onTestFinished(leave);
  child.stdin.end(JSON.stringify(orders));
  await new Promise<void>((resolve, reject) => {
    child.once('exit', (code) => {
      reject(new Error(`the crowd ended with ${code ?? 'a signal'}`));
    });
    createInterface(child.stdout).once('line', () => {
      resolve();
    });
  });
  return { leave };
}
