import { mkdtemp, rename, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { HypervisorError } from '../../src/core/hypervisor/hypervisor-error.ts';
import { createGuestAgent, UnknownVerbError } from '../../src/guest/agent.ts';
import { createGuestIdentity } from '../../src/guest/identity.ts';

/** Long enough that only a test that hangs reaches it. */
const patience = 20_000;
/** For calls that are to end by their own deadline. */
const shortly = 150;

const bootId = '6f1c2c34-0c6f-4d0e-9f0a-1d2f3a4b5c6d';
const hex = (text: string) => Buffer.from(text).toString('hex');
const pairs = (fields: Record<string, string>) =>
  Object.entries(fields).map(([name, value]) => `${name}=${hex(value)}`);
const statusFields = { boot_id: bootId, identified: '1', uptime: '12.34' };

let folder: string;
let socketPath: string;
let server: Server | undefined;
/** Lines that the peer received, without the empty ones. */
let heard: string[];

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'berth-agent-'));
  socketPath = path.join(folder, 'agent');
  heard = [];
});

afterEach(async () => {
  await new Promise<void>((resolve) => {
    if (server === undefined) resolve();
    else {
      server.close(() => {
        resolve();
      });
    }
  });
  server = undefined;
  await rm(folder, { recursive: true });
});

/** A stand-in for the agent: called with each line and the request id in it. */
async function peer(onLine: (socket: Socket, id: string, verb: string, line: string) => void): Promise<void> {
  server = createServer((socket) => {
    let received = '';
    socket.on('error', () => undefined);
    socket.on('data', (chunk) => {
      const lines = (received + chunk.toString()).split('\n');
      received = lines.pop() ?? '';
      for (const line of lines.filter((candidate) => candidate !== '')) {
        heard.push(line);
        const [id = '', verb = ''] = line.split(' ');
        onLine(socket, id, verb, line);
      }
    });
  });
  await new Promise<void>((resolve) => server?.listen(socketPath, resolve));
}

const answering = (fields: Record<string, string>) =>
  peer((socket, id) => socket.write(`\n${[id, 'ok', ...pairs(fields)].join(' ')}\n`));

describe('guest agent client', () => {
  it('guest agent: returns the status that the guest reports', async () => {
    await answering(statusFields);
    expect(await createGuestAgent(socketPath).status(patience)).toEqual({
      uptimeSeconds: 12.34,
      bootId,
      identified: true,
    });
  });

  it('guest agent: identify sends the whole identity, the published ports and the current time', async () => {
    await answering({ published: '1' });
    const identity = createGuestIdentity('0f8fad5b-d9cb-469f-a165-70867728950e');
    const before = Date.now();
    const ports = { first: 20_010, count: 10 };
    expect(await createGuestAgent(socketPath).identify(identity, ports, patience)).toEqual({
      published: true,
    });
    const after = Date.now();
    const [, verb, ...words] = heard[0]?.split(' ') ?? [];
    expect(verb).toBe('identify');
    const sent = new Map(
      words.map((word) => {
        const [name = '', value = ''] = word.split('=');
        return [name, Buffer.from(value, 'hex')];
      }),
    );
    expect(sent.get('entropy')).toEqual(identity.entropy);
    expect(sent.get('hostname')?.toString()).toBe(identity.hostname);
    expect(sent.get('ports')?.toString()).toBe('20010-20019');
    expect(sent.get('machine_id')?.toString()).toBe(identity.machineId);
    expect(sent.get('boot_id')?.toString()).toBe(identity.bootId);
    expect(sent.get('engine_uuid')?.toString()).toBe(identity.engineId);
    expect(sent.get('engine_id')?.toString()).toBe(identity.engineKey.fingerprint);
    expect(sent.get('engine_key')?.toString()).toBe(identity.engineKey.key);
    const clock = sent.get('clock')?.toString() ?? '';
    expect(clock).toMatch(/^\d+\.\d{9}$/);
    expect(Number(clock) * 1000).toBeGreaterThanOrEqual(before - 1);
    expect(Number(clock) * 1000).toBeLessThanOrEqual(after + 1);
  });

  it("guest agent: correctClock asks for the guest's time, and sends the error", async () => {
    let ahead = 5_000;
    await peer((socket, id, _, line) => {
      const adjust = /adjust=([0-9a-f]+)/.exec(line)?.[1];
      const time = (Date.now() + ahead) / 1000;
      if (adjust !== undefined) ahead += Number(Buffer.from(adjust, 'hex').toString());
      socket.write(`${id} ok ${pairs({ clock: time.toFixed(9) }).join(' ')}\n`);
    });
    expect(await createGuestAgent(socketPath).correctClock(patience)).toBe(true);
    expect(Math.abs(ahead)).toBeLessThan(100);
    expect(heard.at(-1)).toContain(' clock adjust=');
  });

  it('guest agent: freeze, grow and powerOff send these verbs', async () => {
    await answering({ kernel_secrets: '1f00010,1f00030', cpus: '3', bytes: String(5 * 1024 ** 3) });
    const agent = createGuestAgent(socketPath);
    expect(await agent.freeze(patience)).toEqual([0x1f00010, 0x1f00030]);
    expect(await agent.grow(3, patience)).toEqual({ vcpus: 3, diskGib: 5 });
    expect(await agent.powerOff(patience)).toBe(true);
    expect(heard.map((line) => line.split(' ').slice(1).join(' '))).toEqual([
      'freeze',
      `grow cpus=${hex('3')}`,
      'poweroff',
    ]);
  });

  it('guest agent: says whether the engine has its published ports', async () => {
    const ports = { first: 20_010, count: 0 };
    const agent = createGuestAgent(socketPath);
    const identity = createGuestIdentity('0f8fad5b-d9cb-469f-a165-70867728950e');
    const published: string[] = ['0', '1'];
    await peer((socket, id) => {
      const [next = '1'] = published.splice(0, 1);
      socket.write(`${id} ok ${pairs({ published: next }).join(' ')}\n`);
    });
    expect(await agent.identify(identity, ports, patience)).toEqual({ published: false });
    expect(await agent.publish(ports, patience)).toBe(true);
    expect(heard[1]).toMatch(/ publish ports=$/);
  });

  it('guest agent: of a former image, which knows nothing of ports, is left alone', async () => {
    await peer((socket, id, verb) =>
      socket.write(
        verb === 'identify'
          ? `${id} ok\n`
          : `${id} error ${pairs({ message: `unknown verb ${verb}` }).join('')}\n`,
      ),
    );
    const ports = { first: 20_010, count: 1 };
    const agent = createGuestAgent(socketPath);
    const identity = createGuestIdentity('0f8fad5b-d9cb-469f-a165-70867728950e');
    expect(await agent.identify(identity, ports, patience)).toEqual({ published: true });
    expect(await agent.publish(ports, patience)).toBe(true);
  });

  it('guest agent: accepts an answer that arrives in pieces', async () => {
    await peer((socket, id) => {
      const answer = `\n${[id, 'ok', ...pairs(statusFields)].join(' ')}\n`;
      socket.write(answer.slice(0, 20), () => setImmediate(() => socket.write(answer.slice(20))));
    });
    expect(await createGuestAgent(socketPath).status(patience)).toMatchObject({ uptimeSeconds: 12.34 });
  });

  it('guest agent: ignores partial and complete answers to other requests', async () => {
    await peer((socket, id) => {
      const others = `0123 ok ${pairs({ ...statusFields, uptime: '99' }).join(' ')}`;
      const own = [id, 'ok', ...pairs(statusFields)].join(' ');
      socket.write(`${others.slice(9)}\n${others}\n4567 ok upti\n${own}\n`);
    });
    expect(await createGuestAgent(socketPath).status(patience)).toMatchObject({ uptimeSeconds: 12.34 });
  });

  it('guest agent: receives a whole request although an earlier caller was cut off half-way', async () => {
    await answering(statusFields);
    let received = '';
    server?.on('connection', (socket: Socket) =>
      socket.on('data', (chunk) => {
        received += chunk.toString();
      }),
    );
    await createGuestAgent(socketPath).status(patience);
    expect(received).toMatch(/^\n[0-9a-f]{24} status\n$/);
  });

  it('guest agent: uses a new request id each time', async () => {
    await answering(statusFields);
    const agent = createGuestAgent(socketPath);
    await Promise.all(Array.from({ length: 20 }, () => agent.status(patience)));
    expect(new Set(heard.map((line) => line.split(' ')[0])).size).toBe(20);
  });
});

describe('guest agent refusals', () => {
  it('guest agent: an error contains the refusal, with control characters escaped', async () => {
    await peer((socket, id) =>
      socket.write(`${id} error ${pairs({ message: 'FITRIM: no\u0007 disk' }).join(' ')}\n`),
    );
    const refusal = createGuestAgent(socketPath).freeze(patience);
    await expect(refusal).rejects.toThrow(HypervisorError);
    await expect(refusal).rejects.toThrow("the guest's agent refused to freeze: FITRIM: no\\u0007 disk");
  });

  it('guest agent: an older guest that can not use more CPUs is refused', async () => {
    await answering({ bytes: '4096' });
    await expect(createGuestAgent(socketPath).grow(2, patience)).rejects.toThrow(/image is older/);
  });

  it('guest agent: a verb that an older guest does not know is told apart', async () => {
    await peer((socket, id, verb) =>
      socket.write(`${id} error ${pairs({ message: `unknown verb ${verb}` }).join(' ')}\n`),
    );
    await expect(createGuestAgent(socketPath).correctClock(patience)).rejects.toThrow(UnknownVerbError);
  });

  it('guest agent: an error contains at most 500 characters of the refusal', async () => {
    await peer((socket, id) => socket.write(`${id} error message=${hex('x'.repeat(5000))}\n`));
    const message = await createGuestAgent(socketPath).powerOff(patience).catch(String);
    expect(message).toMatch(/x{400}/);
    expect(String(message).length).toBeLessThan(600);
  });
});

describe('guest agent offline', () => {
  it.each([
    ['the socket does not exist', async () => Promise.resolve()],
    [
      'the socket belongs to a VM that has ended',
      async () => {
        await peer(() => undefined);
        // Closing a server removes its socket, but not under another name.
        await rename(socketPath, `${socketPath}.kept`);
        await new Promise((resolve) => server?.close(resolve));
        server = undefined;
        await rename(`${socketPath}.kept`, socketPath);
      },
    ],
    ['the guest is silent', () => peer(() => undefined)],
    ['the VM ends', () => peer((socket) => socket.destroy())],
    ['only other requests are answered', () => peer((socket) => socket.write('abc ok\n'))],
  ])('guest agent: returns undefined and no error if %s', async (_, begin) => {
    await begin();
    const agent = createGuestAgent(socketPath);
    expect(await agent.status(shortly)).toBeUndefined();
    expect(await agent.freeze(shortly)).toBeUndefined();
  });
});

describe('hostile guest agent', () => {
  it('hostile guest agent: an endless answer is cut at the size limit', async () => {
    let sent = 0;
    await peer((socket) => {
      const pour = () => {
        while (socket.writable && sent < 64 * 1024 * 1024) {
          sent += 65536;
          if (!socket.write('a'.repeat(65536))) {
            socket.once('drain', pour);
            return;
          }
        }
      };
      pour();
    });
    await expect(createGuestAgent(socketPath).status(patience)).rejects.toThrow(
      /a line of more than 16384 bytes/,
    );
    expect(sent).toBeLessThan(64 * 1024 * 1024);
  });

  it('hostile guest agent: a complete answer over the size limit is refused', async () => {
    await peer((socket, id) => socket.write(`${id} ok boot_id=${'61'.repeat(10_000)}\n`));
    await expect(createGuestAgent(socketPath).status(patience)).rejects.toThrow(
      /a line of more than 16384 bytes/,
    );
  });

  it('hostile guest agent: an invalid time is refused', async () => {
    await answering({ clock: 'soon' });
    await expect(createGuestAgent(socketPath).correctClock(patience)).rejects.toThrow(HypervisorError);
  });

  it.each([
    ['no fields', {}],
    ['an uptime that is not a number', { ...statusFields, uptime: 'soon' }],
    ['an invalid boot id', { ...statusFields, boot_id: '../../etc/passwd' }],
  ])('hostile guest agent: an invalid status is refused: %s', async (_, fields) => {
    await answering(fields);
    await expect(createGuestAgent(socketPath).status(patience)).rejects.toThrow(HypervisorError);
  });
});
