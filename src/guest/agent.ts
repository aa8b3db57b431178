import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { HypervisorError } from '../core/hypervisor/hypervisor-error.ts';
import type { RegistrySettings } from '../core/hypervisor/host-spec.ts';
import type { GuestIdentity } from './identity.ts';

/** No honest answer is longer, in bytes. A tenant is root in the guest, so the agent may be anybody. */
const longestAnswer = 16 * 1024;

type Fields = Readonly<Record<string, string | Buffer>>;

/** What a guest says of itself. */
export interface GuestStatus {
  /** Seconds since the guest booted. Time in which it was frozen in a template does not count. */
  readonly uptimeSeconds: number;
  readonly bootId: string;
  /** Whether it has been given its identity since it booted or was restored. */
  readonly identified: boolean;
}

/**
 * The machine's end of the virtio-serial port; image/guest/usr/local/sbin/berth-agent is the other one. Each
 * call has a deadline in milliseconds, and what it returns says whether anybody answered by then.
 * @throws HypervisorError where the agent refuses, with its words, or speaks nonsense.
 */
export interface GuestAgent {
  /** Undefined while nobody answers. */
  status(timeoutMs: number): Promise<GuestStatus | undefined>;
  /**
   * Makes the guest itself, and lets the engine of a template's copy go on. Safe to ask again: hostname,
   * machine-id, boot id and engine id stay what they were made the first time since boot or restore.
   */
  identify(identity: GuestIdentity, timeoutMs: number): Promise<boolean>;
  /**
   * Gives the engine its registries in the place of those that it had. Safe to ask again.
   * @returns false also while the engine is still starting.
   */
  configure(registries: RegistrySettings, timeoutMs: number): Promise<boolean>;
  /** Grows the data disk's file system to its disk, in use as it is; the guest does so by itself at boot. */
  grow(timeoutMs: number): Promise<boolean>;
  /** Readies the guest to become a template. The engine stands still from here on, until {@link identify}. */
  freeze(timeoutMs: number): Promise<boolean>;
  /** Asks for an orderly end. */
  powerOff(timeoutMs: number): Promise<boolean>;
}

/**
 * Speaks with the agent through QEMU's Unix socket. Each call is a connection of its own, which QEMU serves
 * one after the other.
 */
export function createGuestAgent(socketPath: string): GuestAgent {
  const call = (verb: string, timeoutMs: number, fields: Fields = {}) =>
    callAgent(socketPath, verb, fields, timeoutMs);
  const done = async (verb: string, timeoutMs: number, fields: Fields = {}) =>
    (await call(verb, timeoutMs, fields)) !== undefined;
  return {
    async status(timeoutMs) {
      const answer = await call('status', timeoutMs);
      if (answer === undefined) return undefined;
      const uptimeSeconds = Number.parseFloat(answer.get('uptime') ?? '');
      const bootId = answer.get('boot_id') ?? '';
      if (Number.isNaN(uptimeSeconds) || !/^[0-9a-f-]{36}$/.test(bootId)) {
        throw new HypervisorError(
          "the guest's agent does not say how long the guest has run, or which boot it is",
        );
      }
      return { uptimeSeconds, bootId, identified: answer.get('identified') === '1' };
    },
    identify: (identity, timeoutMs) =>
      done('identify', timeoutMs, {
        clock: clockNow(),
        entropy: identity.entropy,
        hostname: identity.hostname,
        machine_id: identity.machineId,
        boot_id: identity.bootId,
        engine_id: identity.engineId,
        engine_key: identity.engineKey,
      }),
    async configure({ mirrors, insecure, authorities }, timeoutMs) {
      const answer = await call('configure', timeoutMs, {
        mirrors: JSON.stringify(mirrors),
        insecure: JSON.stringify(insecure),
        authorities: authorities.map(({ host, certificate }) => `host ${host}\n${certificate}\n`).join(''),
      });
      return answer?.get('told') === '1';
    },
    grow: (timeoutMs) => done('grow', timeoutMs),
    freeze: (timeoutMs) => done('freeze', timeoutMs),
    powerOff: (timeoutMs) => done('poweroff', timeoutMs),
  };
}

/** SECONDS.NANOSECONDS since 1970. */
function clockNow(): string {
  const now = Date.now();
  return `${Math.floor(now / 1000)}.${String((now % 1000) * 1_000_000).padStart(9, '0')}`;
}

/**
 * One request and its answer.
 * @returns undefined where nobody answers in time: the guest is still booting, or its agent is gone.
 */
async function callAgent(
  socketPath: string,
  verb: string,
  fields: Fields,
  timeoutMs: number,
): Promise<ReadonlyMap<string, string> | undefined> {
  // Not a count: an answer to somebody else's request, from before a restart of ours, is none to this one.
  const id = randomBytes(12).toString('hex');
  const words = Object.entries(fields).map(
    ([name, value]) => `${name}=${Buffer.from(value).toString('hex')}`,
  );
  const line = await exchange(socketPath, `\n${[id, verb, ...words].join(' ')}\n`, id, timeoutMs);
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

/** Not there yet, or just gone: whether the machine runs is for its driver to know. */
const nobodyThere = new Set(['ENOENT', 'ECONNREFUSED', 'ECONNRESET', 'EPIPE']);

/** Sends a request and waits for the line that begins with its id; others are from before our time. */
function exchange(
  socketPath: string,
  request: string,
  id: string,
  timeoutMs: number,
): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const socket: Socket = connect(socketPath);
    let received = '';
    const end = (result: string | undefined, problem?: string) => {
      clearTimeout(timer);
      socket.destroy();
      if (problem === undefined) resolve(result);
      else reject(new HypervisorError(problem));
    };
    const timer = setTimeout(end, timeoutMs, undefined);
    socket.on('connect', () => {
      socket.write(request);
    });
    socket.on('data', (chunk) => {
      const lines = (received + chunk.toString('latin1')).split('\n');
      received = lines.pop() ?? '';
      const line = lines.find((candidate) => candidate.startsWith(`${id} `));
      if (line === undefined && received.length <= longestAnswer) return;
      if (line !== undefined && line.length <= longestAnswer) end(line);
      else end(undefined, `the guest's agent sent an answer of more than ${longestAnswer} bytes`);
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (nobodyThere.has(error.code ?? '')) end(undefined);
      else end(undefined, `the guest's agent can't be reached: ${error.message}`);
    });
    socket.on('close', () => {
      end(undefined);
    });
  });
}

function printable(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, '?');
}
