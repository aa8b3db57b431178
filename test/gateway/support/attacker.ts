import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { onTestFinished } from 'vitest';
import type { CostlyChain } from './costly-chain.ts';

export interface AttackOrders {
  readonly port: number;
  readonly localAddress: string;
  /** Handshakes with this chain, begun again as soon as they end. */
  readonly handshakes?: { readonly atOnce: number; readonly chain: CostlyChain };
  /** Connections that say nothing, opened again as soon as they are closed. */
  readonly silent?: number;
  /** Connections that send a valid hello and nothing else, opened again as soon as they are closed. */
  readonly hellos?: number;
}

/** Runs in a separate process: its work is not the gateway's. It prints a line with each attempt that ends. */
const program = `
const net = require('node:net'), tls = require('node:tls');
const { port, localAddress, handshakes, silent = 0, hellos = 0 } = JSON.parse(require('node:fs').readFileSync(0, 'utf8'));
const at = { host: '127.0.0.1', port, localAddress };
let ended = 0;
setInterval(() => console.log(ended), 20);
const again = (connect) => connect().on('error', () => {}).once('close', () => { ended += 1; setImmediate(again, connect); });
if (handshakes) {
  const { certificatePem: cert, privateKeyPem: key } = handshakes.chain;
  const secureContext = tls.createSecureContext({ cert, key });
  for (let i = 0; i < handshakes.atOnce; i += 1) again(() => tls.connect({ ...at, secureContext, rejectUnauthorized: false }));
}
for (let i = 0; i < silent; i += 1) again(() => net.connect(at));
let hello;
const recorder = net.createServer((socket) => socket.on('error', () => {}).once('data', (data) => { hello = data; socket.destroy(); recorder.close(); }));
recorder.listen(0, '127.0.0.1', () => {
  tls.connect({ host: '127.0.0.1', port: recorder.address().port }).on('error', () => {}).once('close', () => {
    for (let i = 0; i < hellos; i += 1) again(() => net.connect(at, function () { this.write(hello); }));
  });
});
`;

/** An attacker in its own process, until the test ends. */
export function startAttacker(orders: AttackOrders): { attempts(): number } {
  const child = spawn(process.execPath, ['-e', program], { env: {}, stdio: ['pipe', 'pipe', 'inherit'] });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  child.stdin.end(JSON.stringify(orders));
  let attempts = 0;
  createInterface(child.stdout).on('line', (line) => (attempts = Number(line)));
  return { attempts: () => attempts };
}
