import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { onTestFinished } from 'vitest';
import type { IssuedCertificate } from '../../../src/core/ports/certificate-issuer.ts';

export interface CrowdOrders {
  readonly port: number;
  readonly ca: string;
  readonly certificate: Pick<IssuedCertificate, 'certificatePem' | 'privateKeyPem'>;
  /** Clients that finish the handshake and then send nothing. */
  readonly idle: number;
  /** Clients that finish the handshake, request an endless answer, and read nothing. */
  readonly stalled: number;
  /** Clients that connect and send nothing. */
  readonly silent: number;
  /** Clients that send data that isn't TLS. */
  readonly garbage: number;
}

/** Runs in a separate process, so that its memory is not counted as the gateway's. */
const program = `
const net = require('node:net'), tls = require('node:tls');
const { port, ca, certificate, idle, stalled, silent, garbage } = JSON.parse(require('node:fs').readFileSync(0, 'utf8'));
const at = { host: '127.0.0.1', port };
const open = [];
const secureContext = tls.createSecureContext({ ca, cert: certificate.certificatePem, key: certificate.privateKeyPem });
const secure = (then) => new Promise((resolve) => {
  const socket = tls.connect({ ...at, secureContext, ca }, () => { then(socket); resolve(); });
  socket.on('error', resolve);
  open.push(socket);
});
const plain = (then) => new Promise((resolve) => {
  const socket = net.connect(at, () => { then(socket); resolve(); });
  socket.on('error', resolve);
  open.push(socket);
});
(async () => {
  for (let i = 0; i < idle; i += 20) await Promise.all(Array.from({ length: Math.min(20, idle - i) }, () => secure(() => {})));
  for (let i = 0; i < stalled; i += 1) await secure((socket) => { socket.pause(); socket.write('GET /everything HTTP/1.1\\r\\n\\r\\n'); });
  for (let i = 0; i < garbage; i += 1) await plain((socket) => { socket.write(Buffer.alloc(40000, i)); });
  for (let i = 0; i < silent; i += 1) await plain(() => {});
  console.log('all connected');
})();
`;

/** Starts many clients; resolves when all have connected. They are killed when the test ends. */
export async function startCrowd(orders: CrowdOrders): Promise<{ leave: () => void }> {
  const child = spawn(process.execPath, ['-e', program], { env: {}, stdio: ['pipe', 'pipe', 'inherit'] });
  const leave = () => {
    child.kill('SIGKILL');
  };
  onTestFinished(leave);
  child.stdin.end(JSON.stringify(orders));
  await new Promise<void>((resolve, reject) => {
    child.once('exit', (code) => {
      reject(new Error(`the crowd exited with ${code ?? 'a signal'}`));
    });
    createInterface(child.stdout).once('line', () => {
      resolve();
    });
  });
  return { leave };
}
