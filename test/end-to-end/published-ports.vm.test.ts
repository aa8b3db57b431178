import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { busyboxTree, type Docker, dockerFor } from '../../tools/lib/docker.ts';
import { createOutsidePeer, type OutsidePeer } from '../../tools/lib/outside-peer.ts';
import { type BrokerProcess, makeBrokerProcess, serviceId } from '../support/broker-process.ts';
import { nodeAddress } from '../../src/config/defaults.ts';
import { eventually } from '../support/eventually.ts';

const node = nodeAddress();

/** What people expect of a Docker host's ports, on a host restored from a template. */
describe('published ports', { timeout: 1_200_000 }, () => {
  let broker: BrokerProcess;
  let outside: OutsidePeer;
  let docker: Docker;
  let first: number;
  const cleanUp: (() => Promise<void>)[] = [];
  const web = ['busybox:1', '/bin/httpd', '-f', '-p', '80', '-h', '/www'];

  beforeAll(async () => {
    broker = await makeBrokerProcess(2);
    cleanUp.push(() => broker.dispose());
    outside = await createOutsidePeer();
    cleanUp.push(() => outside.remove());
    await broker.start();
    expect((await broker.create('ports', 'org')).status).toBeLessThan(300);
    const { credentials } = (await broker.bind('ports', 'binding')).body;
    first = Number(credentials.published_ports.split('-')[0]);
    docker = await dockerFor(credentials);
    cleanUp.push(() => docker.dispose());
    expect((await docker.run(['import', '-', 'busybox:1'], await busyboxTree())).code).toBe(0);
  }, 1_200_000);

  afterAll(async () => {
    for (const act of cleanUp.reverse()) await act();
  }, 300_000);

  /** The port that docker names, once it answers from outside. */
  async function answeringPort(name: string): Promise<number> {
    const named = await docker.run(['port', name, '80/tcp']);
    const port = Number(/^0\.0\.0\.0:(\d+)$/m.exec(named.stdout)?.[1]);
    expect(port, named.stderr).toBeGreaterThan(0);
    await eventually(`port ${port} answers`, async () =>
      (await outside.run('curl', '-s', '-m', '5', `http://${node}:${port}/`)).includes('hello'),
    );
    return port;
  }
  const started = async (name: string, ...options: string[]) => {
    const run = await docker.run(['run', '-d', '--name', name, ...options, ...web]);
    expect(run.code, run.stderr).toBe(0);
    return answeringPort(name);
  };
  const publish = async (count: number | null) => {
    const answer = await broker.ask('PATCH', '/v2/service_instances/ports?accepts_incomplete=true', {
      service_id: serviceId,
      parameters: { published_ports: count },
    });
    // Nothing restarts, so it completes within the request.
    expect(answer.status, JSON.stringify(answer.body)).toBe(200);
  };

  // Each fails without EnginePorts.pm, with 32768.
  it("published ports: -P picks one of the host's, and it answers from outside", async () => {
    expect(await started('first', '--restart', 'always', '-P', '--expose', '80')).toBe(first);
  });

  it("published ports: a port that is not the host's is refused with the remedy, except for the host itself", async () => {
    const refused = await docker.run(['run', '--name', 'refused', '-p', '8080:80', ...web]);
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toContain(
      `port 8080 is not one of this host's published ports ${first}-${first + 9}; publish one of them (-p ${first}:PORT)`,
    );
    expect((await docker.run(['rm', 'refused'])).code).toBe(0);
    const inside = await docker.run(['run', '-d', '--name', 'inside', '-p', '127.0.0.1:8080:80', ...web]);
    expect(inside.code, inside.stderr).toBe(0);
    expect((await docker.run(['rm', '-f', 'inside'])).code).toBe(0);
  });

  it("published ports: containers reach the host's own by the public address, and what is denied is refused at once", async () => {
    const exec = (...command: string[]) => docker.run(['exec', 'first', ...command]);
    // Not wget: busybox without libraries crashes when it looks up a name.
    const ask = ['exec', '-i', 'first', '/bin/nc', '-w', '60', node, String(first)];
    const own = await docker.run(ask, 'GET / HTTP/1.0\r\n\r\n');
    expect(own.stdout, own.stderr).toContain('hello from a container\n');
    // Fails without the chain `refuse`: they time out.
    for (const denied of [`${node} 22`, '169.254.169.254 80', '10.255.255.1 5000']) {
      const { stderr } = await exec('/bin/nc', '-w', '60', ...denied.split(' '));
      expect(stderr, denied).toContain('Connection refused');
    }
  });

  it('published ports: a change of their number reaches the running engine', async () => {
    await publish(2);
    expect(await started('second', '-p', '80')).toBe(first + 1);
    const third = await docker.run(['run', '--name', 'third', '-p', '80', ...web]);
    expect(third.stderr).toContain('all ports are allocated');
    await docker.run(['rm', 'third']);
    expect((await docker.run(['inspect', '--format', '{{.RestartCount}}', 'first'])).stdout).toBe('0\n');

    await publish(null);
    expect(await started('third', '-p', '80')).toBe(first + 2);
    await publish(0);
    const none = await docker.run(['run', '--name', 'none', '-p', '80', ...web]);
    expect(none.stderr).toContain('this host has no published ports');
    await publish(null);
  });

  it('published ports: stay after the engine has started again, with containers that it starts', async () => {
    const engine = ['run', '--rm', '--privileged', '--pid', 'host', 'busybox:1', '/bin/busybox'];
    await docker.run([...engine, 'pkill', '-KILL', 'dockerd']);
    await eventually('the container runs again', async () => {
      const { stdout } = await docker.run(['inspect', '--format', '{{.State.Running}}', 'first']);
      return stdout === 'true\n';
    });
    const port = await answeringPort('first');
    expect(port).toBeGreaterThanOrEqual(first);
    expect(port).toBeLessThan(first + 10);
    expect(await started('fourth', '-p', '80')).toBeLessThan(first + 10);
  });
});
