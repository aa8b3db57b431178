import { createServer, type Server } from 'node:http';
import { afterEach, expect, it } from 'vitest';
import { HypervisorError } from '../../../../src/core/hypervisor/hypervisor-error.ts';
import { runningContainers, startContainer } from '../../../../src/hypervisors/qemu/engine/containers.ts';

const patience = 10_000;
const id = (digit: string) => digit.repeat(64);
let server: Server | undefined;
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
});

/** A guest's engine, or what a tenant has replaced it with: gives this answer to every request. */
async function engine(status: number, body: string | (() => string)) {
  const asked: string[] = [];
  const made = createServer((request, response) => {
    asked.push(`${request.method ?? ''} ${request.url ?? ''}`);
    response.writeHead(status);
    response.end(status === 304 ? undefined : typeof body === 'string' ? body : body());
  });
  server = made;
  await new Promise<void>((resolve) => made.listen(0, '127.0.0.1', resolve));
  const address = made.address();
  if (address === null || typeof address === 'string') throw new Error('it does not listen');
  return { address: { host: '127.0.0.1', port: address.port }, asked };
}

it('running containers: listed oldest first', async () => {
  const { address, asked } = await engine(200, JSON.stringify([{ Id: id('b') }, { Id: id('a') }]));
  expect(await runningContainers(address, patience)).toEqual([id('a'), id('b')]);
  expect(asked.map(decodeURIComponent)).toEqual([
    'GET /containers/json?limit=100&filters={"status":["running","paused","restarting"]}',
  ]);
});

// Fails without the schema: the ids became part of a request's path, and `null` threw a TypeError.
it.each([
  ['an id that could change the request path', { Id: '../../images/prune?x=' }],
  ['an id with more after it', { Id: `${id('a')}/../` }],
  ['an id that is a number', { Id: 7 }],
  ['an entry without id', {}],
  ['null in place of an entry', null],
])('running containers: refuses a list with %s', async (_, entry) => {
  const { address } = await engine(200, JSON.stringify([{ Id: id('c') }, entry]));
  await expect(runningContainers(address, patience)).rejects.toThrow(HypervisorError);
});

it('running containers: asks page by page, and returns a limited number', async () => {
  let last = 0xffff;
  const page = () => Array.from({ length: 100 }, () => ({ Id: (last -= 1).toString(16).padStart(64, '0') }));
  const { address, asked } = await engine(200, () => JSON.stringify(page()));
  const listed = await runningContainers(address, patience);
  expect(listed).toHaveLength(1_000);
  expect([...listed].sort()).toEqual(listed);
  expect(asked).toHaveLength(10);
  expect(decodeURIComponent(asked[1] ?? '')).toContain(`"before":["${listed.at(-100) ?? ''}"]`);
});

// Fails with the former limit of 8 MiB: the answer was parsed, which blocked the process for seconds.
it('running containers: refuses a long list before it is parsed', async () => {
  const { address } = await engine(200, `[${'{},'.repeat(500_000)}{}]`);
  await expect(runningContainers(address, patience)).rejects.toThrow(/too long/);
});

it.each([
  [200, '{"message": "no list"}'],
  [500, '[]'],
])('running containers: an unexpected answer is an error: %i %s', async (status, body) => {
  const { address } = await engine(status, body);
  await expect(runningContainers(address, patience)).rejects.toThrow(HypervisorError);
});

it.each([204, 304])('start container: accepts answer %i (started, or already running)', async (status) => {
  const { address, asked } = await engine(status, '');
  await startContainer(address, id('a'));
  expect(asked).toEqual([`POST /containers/${id('a')}/start`]);
});

it("start container: the error contains the engine's reason", async () => {
  const { address } = await engine(404, '{"message": "No such container"}');
  await expect(startContainer(address, id('a'))).rejects.toThrow(/404.*No such container/);
});
