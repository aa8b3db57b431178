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
async function engine(status: number, body: string) {
  const asked: string[] = [];
  const made = createServer((request, response) => {
    asked.push(`${request.method ?? ''} ${request.url ?? ''}`);
    response.writeHead(status);
    response.end(status === 304 ? undefined : body);
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
  expect(asked).toEqual(['GET /containers/json']);
});

it('running containers: ignores ids that could change the request path', async () => {
  const ids = ['../../images/prune?x=', `${id('a')}/../`, 7, undefined, id('c')];
  const { address } = await engine(200, JSON.stringify(ids.map((Id) => ({ Id }))));
  expect(await runningContainers(address, patience)).toEqual([id('c')]);
});

it('running containers: returns a limited number', async () => {
  const all = Array.from({ length: 5_000 }, (_, index) => ({ Id: index.toString(16).padStart(64, '0') }));
  const { address } = await engine(200, JSON.stringify(all));
  expect(await runningContainers(address, patience)).toHaveLength(2_000);
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
