import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';
import { HypervisorError } from '../core/hypervisor/hypervisor-error.ts';
import type { PortBlock, RegistrySettings } from '../core/hypervisor/host-spec.ts';
import { errorMessage } from '../lib/error-message.ts';
import { formatPortRange } from '../lib/port-range.ts';
import { printable } from '../lib/printable.ts';
import { createLineReader } from '../lib/line-reader.ts';
import { settleWithin } from '../lib/settle-within.ts';
import { correctClock } from './clock.ts';
import type { GuestIdentity } from './identity.ts';

/** Longest answer, in bytes. A tenant is root in the guest, so the peer may not be our agent. */
const maxAnswerBytes = 16 * 1024;
/** Everything that is read for one request, in bytes: answers to a few earlier requests may come first. */
const maxReceivedBytes = 8 * maxAnswerBytes;

type Fields = Readonly<Record<string, string | Buffer>>;

/** The guest's image is older than a verb. */
export class UnknownVerbError extends HypervisorError {}

/** What a guest reports about itself. */
export interface GuestStatus {
  /** Seconds since the guest booted, not counting the time that it was frozen in a template. */
  readonly uptimeSeconds: number;
  readonly bootId: string;
  /** Whether it has got its identity since it booted or was restored. */
  readonly identified: boolean;
}

/**
 * Client of the agent in the guest (image/guest/usr/local/sbin/berth-agent), over a virtio-serial port. Each call has a
 * timeout in milliseconds; `undefined` or `false` means that the guest did not answer in time.
 * @throws HypervisorError if the agent refuses, with its message, or sends an invalid answer.
 */
export interface GuestAgent {
  /** Undefined if the guest does not answer. */
  status(timeoutMs: number): Promise<GuestStatus | undefined>;
  /**
   * Gives the guest its identity, and resumes the engine of a guest restored from a template. Safe to repeat: hostname,
   * machine-id, boot id and engine id keep their first values since the boot or restore.
   * @returns whether the engine picks random ports of the published ones; if not, {@link publish} lets it. Undefined if the
   *   guest does not answer.
   */
  identify(
    identity: GuestIdentity,
    publishedPorts: PortBlock,
    timeoutMs: number,
  ): Promise<{ readonly published: boolean } | undefined>;
  /**
   * Lets the engine pick random ports of the published ones, without affecting containers. An engine starts only after the
   * first call. Safe to repeat.
   * @returns false also while the engine is starting.
   */
  publish(publishedPorts: PortBlock, timeoutMs: number): Promise<boolean>;
  /**
   * Corrects the clock if it differs from the node's. The timeout is that of each of a few requests.
   * @throws UnknownVerbError if the guest can only be given the time, by {@link identify}.
   */
  correctClock(timeoutMs: number): Promise<boolean>;
  /**
   * Replaces the engine's registry settings. Safe to repeat.
   * @returns false also while the engine is still starting.
   */
  configure(registries: RegistrySettings, timeoutMs: number): Promise<boolean>;
  /**
   * Takes memory and disk that were added into use, and this number of CPUs. At boot the guest does this itself.
   * @returns what the guest uses now; undefined if it does not answer.
   * @throws HypervisorError also if the guest's image is older than CPUs and memory that can be added.
   */
  grow(
    vcpus: number,
    timeoutMs: number,
  ): Promise<{ readonly vcpus: number; readonly diskGib: number } | undefined>;
  /**
   * Prepares the guest to become a template. The engine is stopped from here until {@link identify}.
   * @returns physical addresses of kernel secrets that each restored guest needs new ones of, 16 bytes each.
   */
  freeze(timeoutMs: number): Promise<readonly number[] | undefined>;
  /** Requests a clean shutdown. */
  powerOff(timeoutMs: number): Promise<boolean>;
}

/** Talks to the agent through QEMU's Unix socket. Each call opens a new connection; QEMU serves one at a time. */
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
        throw new HypervisorError("the guest's agent did not report a valid uptime and boot id");
      }
      return { uptimeSeconds, bootId, identified: answer.get('identified') === '1' };
    },
    async identify(identity, publishedPorts, timeoutMs) {
      const answer = await call('identify', timeoutMs, {
        clock: clockNow(),
        entropy: identity.entropy,
        hostname: identity.hostname,
        machine_id: identity.machineId,
        boot_id: identity.bootId,
        // The names that agents of former images expect, which know Docker 20.10 only.
        engine_id: identity.engineKey.fingerprint,
        engine_key: identity.engineKey.key,
        engine_uuid: identity.engineId,
        ports: formatPortRange(publishedPorts),
      });
      // The agent of a former image does not know of ports.
      return answer && { published: answer.get('published') !== '0' };
    },
    async publish(publishedPorts, timeoutMs) {
      const asked = call('publish', timeoutMs, { ports: formatPortRange(publishedPorts) });
      return (await asked.catch(unlessUnknownVerb))?.get('published') === '1';
    },
    correctClock: (timeoutMs) =>
      correctClock(async (adjustMs) => {
        const change: Fields = adjustMs === undefined ? {} : { adjust: String(adjustMs) };
        const answer = await call('clock', timeoutMs, change);
        if (answer === undefined) return undefined;
        const time = answer.get('clock') ?? '';
        if (!/^[0-9]{1,11}\.[0-9]{9}$/.test(time)) {
          throw new HypervisorError("the guest's agent did not report a valid time");
        }
        return Number(time) * 1000;
      }),
    async configure({ mirrors, insecure, authorities }, timeoutMs) {
      const answer = await call('configure', timeoutMs, {
        mirrors: JSON.stringify(mirrors),
        insecure: JSON.stringify(insecure),
        authorities: authorities.map(({ host, certificate }) => `host ${host}\n${certificate}\n`).join(''),
      });
      return answer?.get('told') === '1';
    },
    async grow(vcpus, timeoutMs) {
      const answer = await call('grow', timeoutMs, { cpus: String(vcpus) });
      if (answer === undefined) return undefined;
      const [used, bytes] = [Number(answer.get('cpus')), Number(answer.get('bytes'))];
      if (!Number.isInteger(used) || !Number.isInteger(bytes)) {
        throw new HypervisorError("the guest's image is older than CPUs and memory that can be added");
      }
      return { vcpus: used, diskGib: bytes / 1024 ** 3 };
    },
    async freeze(timeoutMs) {
      const answer = await call('freeze', timeoutMs);
      if (answer === undefined) return undefined;
      const addresses = answer.get('kernel_secrets') ?? '';
      if (!/^[0-9a-f]{1,12}(,[0-9a-f]{1,12}){0,15}$/.test(addresses)) {
        throw new HypervisorError("the guest's agent did not report the addresses of the kernel's secrets");
      }
      return addresses.split(',').map((address) => Number.parseInt(address, 16));
    },
    powerOff: (timeoutMs) => done('poweroff', timeoutMs),
  };
}

/** The agent of a former image does not know of ports, and its engine picks any. */
function unlessUnknownVerb(error: unknown): ReadonlyMap<string, string> {
  if (!(error instanceof UnknownVerbError)) throw error;
  return new Map([['published', '1']]);
}

/** SECONDS.NANOSECONDS since 1970. */
function clockNow(): string {
  const now = Date.now();
  return `${Math.floor(now / 1000)}.${String((now % 1000) * 1_000_000).padStart(9, '0')}`;
}

/**
 * Sends one request and returns its answer.
 * @returns undefined if no answer arrives in time: the guest is still booting, or its agent has ended.
 */
async function callAgent(
  socketPath: string,
  verb: string,
  fields: Fields,
  timeoutMs: number,
): Promise<ReadonlyMap<string, string> | undefined> {
  // Random, not a counter: after a restart of this process, an answer to an earlier request must not match.
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
  const message = answer.get('message') ?? line;
  const Refusal = message === `unknown verb ${verb}` ? UnknownVerbError : HypervisorError;
  throw new Refusal(`the guest's agent refused to ${verb}: ${printable(message, 500)}`);
}

/** The socket does not exist yet or any more; the driver knows whether the VM runs. */
const offlineCodes = new Set(['ENOENT', 'ECONNREFUSED', 'ECONNRESET', 'EPIPE']);

/** Sends a request and waits for the line that starts with its id; other lines answer older requests. */
function exchange(
  socketPath: string,
  request: string,
  id: string,
  timeoutMs: number,
): Promise<string | undefined> {
  const read = createLineReader({ line: maxAnswerBytes, total: maxReceivedBytes });
  return settleWithin<string | undefined>(
    timeoutMs,
    () => undefined,
    (settle) => {
      const socket = connect(socketPath);
      const fail = (problem: string) => {
        settle.reject(new HypervisorError(problem));
      };
      socket.on('connect', () => {
        socket.write(request);
      });
      socket.on('data', (chunk) => {
        try {
          const line = read(chunk).find((candidate) => candidate.startsWith(`${id} `));
          if (line !== undefined) settle.resolve(line);
        } catch (error) {
          fail(`the guest's agent sent ${errorMessage(error)}`);
        }
      });
      socket.on('error', (error: NodeJS.ErrnoException) => {
        if (offlineCodes.has(error.code ?? '')) settle.resolve(undefined);
        else fail(`the guest's agent can't be reached: ${error.message}`);
      });
      socket.on('close', () => {
        settle.resolve(undefined);
      });
      return () => {
        socket.destroy();
      };
    },
  );
}
