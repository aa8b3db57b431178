import { connect, type Socket } from 'node:net';
import { HypervisorError } from '../core/hypervisor.ts';
import type { GuestIdentity } from './identity.ts';

/** No honest answer is longer, in bytes. A tenant is root in the guest, so the agent may be anybody. */
const longestAnswer = 16 * 1024;

type Fields = Readonly<Record<string, string | Buffer>>;

/** The machine's end of the virtio-serial port; image/guest/usr/local/sbin/berth-agent is the other one. */
export interface GuestAgent {
  /** Seconds since the guest booted; undefined while nobody answers. */
  uptime(timeoutMs: number): Promise<number | undefined>;
  /** Makes the guest itself. False while nobody answers; safe to ask again. */
  identify(identity: GuestIdentity, timeoutMs: number): Promise<boolean>;
  /** Readies the guest to become a template. */
  freeze(engineId: string, timeoutMs: number): Promise<boolean>;
  /** Asks for an orderly end; false where nobody answered. */
  powerOff(timeoutMs: number): Promise<boolean>;
}

/**
 * Speaks with the agent through QEMU's Unix socket. Each call is a connection of its own: what an earlier
 * caller left half said is dropped by the agent.
 */
export function createGuestAgent(socketPath: string): GuestAgent {
  const call = (verb: string, fields: Fields, timeoutMs: number) =>
    callAgent(socketPath, verb, fields, timeoutMs);
  return {
    async uptime(timeoutMs) {
      const answer = await call('status', {}, timeoutMs);
      return answer === undefined ? undefined : Number(answer.get('uptime'));
    },
    async identify(identity, timeoutMs) {
      const now = Date.now();
      const answer = await call(
        'identify',
        {
          clock: `${Math.floor(now / 1000)}.${String((now % 1000) * 1_000_000).padStart(9, '0')}`,
          entropy: identity.entropy,
          hostname: identity.hostname,
          machine_id: identity.machineId,
          boot_id: identity.bootId,
          engine_id: identity.engineId,
          engine_key: identity.engineKey,
        },
        timeoutMs,
      );
      return answer !== undefined;
    },
    freeze: async (engineId, timeoutMs) =>
      (await call('freeze', { engine_id: engineId }, timeoutMs)) !== undefined,
    powerOff: async (timeoutMs) => (await call('poweroff', {}, timeoutMs)) !== undefined,
  };
}

let lastId = 0;

/**
 * One request and its answer.
 * @returns undefined where nobody answers in time: the guest is still booting, or its agent is gone.
 * @throws HypervisorError where the agent refuses, with its words, or speaks nonsense.
 */
async function callAgent(
  socketPath: string,
  verb: string,
  fields: Fields,
  timeoutMs: number,
): Promise<ReadonlyMap<string, string> | undefined> {
  lastId += 1;
  const id = String(lastId);
  const words = Object.entries(fields).map(
    ([name, value]) => `${name}=${Buffer.from(value).toString('hex')}`,
  );
  const line = await exchange(socketPath, `${[id, verb, ...words].join(' ')}\n`, id, timeoutMs);
  if (line === undefined) return undefined;
  const [, outcome, ...pairs] = line.split(' ');
  const answer = new Map(
    pairs.map((pair) => {
      const [name = '', hex = ''] = pair.split('=');
      return [name, Buffer.from(hex, 'hex').toString('utf8')];
    }),
  );
  if (outcome === 'ok') return answer;
  throw new HypervisorError(
    `the guest's agent refused to ${verb}: ${printable(answer.get('message') ?? line).slice(0, 500)}`,
  );
}

/** Sends a line and waits for the line that begins with the same id; others are from before our time. */
function exchange(
  socketPath: string,
  request: string,
  id: string,
  timeoutMs: number,
): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const socket: Socket = connect(socketPath);
    let received = '';
    const end = (result: string | undefined, error?: Error) => {
      clearTimeout(timer);
      socket.destroy();
      if (error === undefined) resolve(result);
      else reject(error);
    };
    const timer = setTimeout(() => {
      end(undefined);
    }, timeoutMs);
    socket.on('connect', () => {
      socket.write(request);
    });
    socket.on('data', (chunk) => {
      received += chunk.toString('latin1');
      const lines = received.split('\n');
      received = lines.pop() ?? '';
      const line = lines.find((candidate) => candidate.startsWith(`${id} `));
      if (line !== undefined) end(line);
      else if (received.length > longestAnswer) {
        end(undefined, new HypervisorError("the guest's agent sent an answer without an end"));
      }
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      // Not there yet, or just gone: whether the machine runs is for its driver to know.
      if (error.code === 'ENOENT' || error.code === 'ECONNREFUSED' || error.code === 'ECONNRESET')
        end(undefined);
      else end(undefined, new HypervisorError(`the guest's agent can't be reached: ${error.message}`));
    });
    socket.on('close', () => {
      end(undefined);
    });
  });
}

function printable(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, '?');
}
