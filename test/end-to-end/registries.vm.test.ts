import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Docker, dockerFor } from '../../tools/lib/docker.ts';
import { createOutsidePeer } from '../../tools/lib/outside-peer.ts';
import { type BrokerProcess, makeBrokerProcess, serviceId } from '../support/broker-process.ts';
import { eventually } from '../support/eventually.ts';
import { type Registry, startRegistry } from '../support/registry.ts';

/** The registry parameters, with pulls of a real engine. Each pull is first refused without its parameter. */
describe('registries', { timeout: 1_200_000 }, () => {
  let broker: BrokerProcess;
  let registry: Registry;
  let docker: Docker;
  const cleanUp: (() => Promise<void>)[] = [];

  const update = async (parameters: object) => {
    const answer = await broker.ask('PATCH', '/v2/service_instances/pulls?accepts_incomplete=true', {
      service_id: serviceId,
      parameters,
    });
    // Nothing restarts, so it completes within the request.
    expect(answer.status, JSON.stringify(answer.body)).toBe(200);
  };
  /** The engine rereads its settings asynchronously. */
  const pulls = (image: string) =>
    eventually(
      `${image} is pulled`,
      async () => {
        const pulled = await docker.run(['pull', image]);
        return pulled.code === 0 ? true : undefined;
      },
      { deadlineMs: 60_000, everyMs: 500 },
    );
  const refuses = async (image: string) => {
    await docker.run(['rmi', '-f', image]);
    return (await docker.run(['pull', image])).stderr;
  };

  beforeAll(async () => {
    broker = await makeBrokerProcess(3);
    cleanUp.push(() => broker.dispose());
    const outside = await createOutsidePeer();
    cleanUp.push(() => outside.remove());
    registry = await startRegistry(outside);
    cleanUp.push(() => registry.remove());
    await broker.start();
    expect((await broker.create('pulls', 'org')).status).toBeLessThan(300);
    docker = await dockerFor((await broker.bind('pulls', 'binding')).body.credentials);
    cleanUp.push(() => docker.dispose());
  }, 1_200_000);

  afterAll(async () => {
    for (const act of cleanUp.reverse()) await act();
  }, 300_000);

  it('registry_authorities: the engine pulls from a registry with that CA', async () => {
    const image = `${registry.name}/private:1`;
    expect(await refuses(image)).toContain('x509: certificate signed by unknown authority');
    await update({ registry_authorities: [{ registry: registry.name, certificate: registry.caPem }] });
    await pulls(image);
    const run = await docker.run(['run', '--rm', '--network', 'none', image, '/bin/echo', 'pulled']);
    expect(run.stdout, run.stderr).toBe('pulled\n');
    await update({ registry_authorities: null });
    expect(await refuses(image)).toContain('x509: certificate signed by unknown authority');
  });

  it('insecure_registries: the engine pulls from a registry with an unknown CA', async () => {
    const image = `${registry.name}/insecure:1`;
    expect(await refuses(image)).toContain('x509');
    await update({ insecure_registries: [registry.name] });
    await pulls(image);
    await update({ insecure_registries: null });
    await eventually('it is refused again', async () => (await refuses(image)).includes('x509'));
  });

  it('registry_mirrors: the engine pulls images of Docker Hub from the mirror', async () => {
    const image = 'berth-only-the-mirror-has-it:1';
    expect((await docker.run(['pull', image])).code).not.toBe(0);
    await update({ registry_mirrors: [registry.mirror] });
    await pulls(image);
    await update({ registry_mirrors: null });
  });
});
