import { spawn } from 'node:child_process';
import { constants, setPriority } from 'node:os';
import { createInterface } from 'node:readline';
import type { Credentials } from '../../../src/http/osb/credentials-body.ts';
import type { CostlyChain } from './costly-chain.ts';

export interface AttackOrders {
  readonly port: number;
  /** Address of 127.0.0.0/8 to connect from. */
  readonly localAddress: string;
  /** Handshakes with this chain, begun again as soon as they end. */
  readonly handshakes?: { readonly atOnce: number; readonly chain: CostlyChain };
  /** Connections that say nothing, opened again as soon as they are closed. */
  readonly silent?: number;
  /** Connections that send a valid hello and nothing else, opened again as soon as they are closed. */
  readonly hellos?: number;
  /** Connections with each of these credentials, opened again a tenth of a second after they are closed. */
  readonly tenants?: {
    readonly credentials: readonly Pick<Credentials, 'ca' | 'cert' | 'key'>[];
    readonly each: number;
  };
}

/** Runs in a separate process: its work is not the gateway's. It prints a line with what it has done so far. */
const program = `
const net = require('node:net'), tls = require('node:tls');
const { port, localAddress, handshakes, silent = 0, hellos = 0, tenants } = JSON.parse(require('node:fs').readFileSync(0, 'utf8'));
const at = { host: '127.0.0.1', port, localAddress };
let ended = 0, open = 0;
setInterval(() => console.log(JSON.stringify({ ended, open })), 20);
const again = (connect, soon = setImmediate) => connect().on('error', () => {}).once('close', () => { ended += 1; soon(again, connect, soon); });
if (handshakes) {
  const { certificatePem: cert, privateKeyPem: key } = handshakes.chain;
  const secureContext = tls.createSecureContext({ cert, key });
  for (let i = 0; i < handshakes.atOnce; i += 1) again(() => tls.connect({ ...at, secureContext, rejectUnauthorized: false }));
}
for (const { ca, cert, key } of tenants?.credentials ?? []) {
  const secureContext = tls.createSecureContext({ ca, cert, key });
  const connect = () => {
    const socket = tls.connect({ ...at, secureContext, ca }, () => {
      open += 1;
      socket.once('close', () => { open -= 1; });
      socket.write('GET /_ping HTTP/1.1\\r\\nHost: docker\\r\\n\\r\\n');
      socket.resume();
    });
    return socket;
  };
  for (let i = 0; i < tenants.each; i += 1) again(connect, (...next) => setTimeout(next[0], 100, ...next.slice(1)));
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

export interface Attacker {
  /** Connections that have ended so far: handshakes and refusals. */
  attempts(): number;
  /** Connections with credentials that are open at present. */
  open(): number;
  /** Lets it continue, or suspends it: then its connections stay open. */
  signal(signal: 'SIGSTOP' | 'SIGCONT'): void;
  stop(): void;
}

/** An attacker in its own process, until it is stopped. */
export function startAttacker(orders: AttackOrders): Attacker {
  const child = spawn(process.execPath, ['-e', program], {
    env: {},
    stdio: ['pipe', 'pipe', 'inherit'],
    // Another session than that of the victim's client: a session has its share of the processors (sched(7), autogroup).
    detached: true,
  });
  // A real one uses another computer's processors.
  if (child.pid !== undefined) setPriority(child.pid, constants.priority.PRIORITY_LOW);
  child.stdin.end(JSON.stringify(orders));
  let last = { ended: 0, open: 0 };
  createInterface(child.stdout).on('line', (line) => (last = JSON.parse(line) as typeof last));
  return {
    attempts: () => last.ended,
    open: () => last.open,
    signal: (signal) => void child.kill(signal),
    stop: () => void child.kill('SIGKILL'),
  };
}
