import { makeHostileEngine, hostileAnswers, type HostileAnswer } from '../../lib/hostile-engine.ts';
import { until } from '../../lib/until.ts';
import { hostHeader, probePath } from '../../../src/hypervisors/simulated/engine.ts';
import { openHostFiles } from '../../../src/hypervisors/simulated/host-files.ts';
import { ids } from '../catalog.ts';
import { tryToConnect } from '../engine-client.ts';
import type { Resident } from '../residents.ts';
import type { Disaster, Scene } from './disaster.ts';
import { replaceRealEngine } from './real-hostile-engine.ts';

/** A tenant replaces its engine by a program that answers in a hostile way; nobody else notices. */
export const hostileEngine: Disaster = {
  name: 'hostile-engine',
  async strike(scene) {
    const { site, platform, residents, random, patienceMs } = scene;
    const attacker = random.pick(residents.all());
    const others = residents.all().filter((one) => one !== attacker);
    const answer = random.pick(Object.keys(hostileAnswers) as HostileAnswer[]);
    const replace = site.settings.hypervisor === 'simulated' ? replaceSimulatedEngine : replaceRealEngine;
    const restore = await replace(scene, attacker, answer);
    try {
      const power = random.pick(['paused', 'suspended', undefined]);
      if (power !== undefined)
        await scene.operator.askUntilAnswered('PUT', `/mgmt/hosts/${attacker.hostId}/power/${power}`);
      const change = random.chance(0.5)
        ? { plan_id: ids.grown }
        : { parameters: { published_ports: random.integer(5) } };
      await platform.update(attacker.id, change);
      void tryToConnect(random.pick(site.gatewayPorts), attacker.credentials);
      // Everybody else's operations and connections are as ever.
      await residents.moveIn();
      for (const { id, credentials } of others)
        for (const port of site.gatewayPorts)
          await until(
            `gateway ${port} leads ${id} to its engine while another answers with ${answer}`,
            patienceMs,
            async () => (await tryToConnect(port, credentials)) === 'accepted',
          );
      // Its instance can be deleted all the same.
      if (random.chance(0.5)) await residents.moveOut(attacker);
    } finally {
      await restore();
    }
    if (residents.all().includes(attacker)) await platform.settled(attacker.id);
  },
};

/** Serves a hostile engine at the port of this host's. @returns a function that serves the former one again. */
async function replaceSimulatedEngine(
  { site, patienceMs }: Scene,
  { hostId }: Resident,
  answer: HostileAnswer,
): Promise<() => Promise<void>> {
  const workers = site.processes.filter(({ name }) => name.startsWith('worker'));
  const withoutWorkers = async <T>(act: () => Promise<T>) => {
    await Promise.all(workers.map((worker) => worker.takeDown()));
    const result = await act();
    for (const worker of workers) worker.bringUp();
    await Promise.all(workers.map((worker) => worker.ready()));
    return result;
  };
  // Workers serve the simulated engines.
  const engine = await withoutWorkers(async () => {
    const vm = (await openHostFiles(site.settings.stateDirectory).readHost(hostId))?.vm;
    if (vm === undefined) throw new Error(`host ${hostId} has no VM`);
    const { port } = vm;
    return until(`port ${port} is free`, patienceMs, () =>
      // The driver asks whether the VM exists, which no guest can deny.
      makeHostileEngine(answer, {
        ...{ host: '127.0.0.1', port },
        except: (request) =>
          request.startsWith(`GET ${probePath} `)
            ? `HTTP/1.1 200 OK\r\n${hostHeader}: ${hostId}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`
            : undefined,
      }),
    );
  });
  return () => withoutWorkers(() => engine.close());
}
