import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { type OsbBroker, makeOsbBroker } from '../../support/osb-broker.ts';

let on: OsbBroker;
beforeAll(async () => {
  on = await makeOsbBroker(inject('postgres'));
});
afterAll(() => on.stop());

const hostOf = (id: string) =>
  on.broker
    .database('hosts')
    .join('instances', 'instances.id', 'hosts.instance_id')
    .where('osb_id', id)
    .first<Record<string, unknown>>('hosts.*');

// Fails without the check in `reserve`: the update was accepted, and the host shared ports with its neighbour.
it('published_ports: grows into ports that no other host has, and is refused if another host has them', async () => {
  const [id, neighbour] = [await on.newInstance(), await on.newInstance()];
  const host = await hostOf(id);
  // As under an earlier catalog with smaller blocks.
  await on.broker.database('hosts').where({ id: host['id'] }).update({ port_block: 5, ports: 5 });
  await on.broker
    .database('hosts')
    .where({ id: (await hostOf(neighbour))['id'] })
    .update({ first_port: Number(host['first_port']) + 7, port_block: 5, ports: 5 });
  const before = await hostOf(id);
  const refused = await on.patch(id, { parameters: { published_ports: 10 } });
  expect(refused.status).toBe(422);
  expect(refused.body['description']).toMatch(
    /^parameters\/published_ports: the host can publish 5 ports at most.*Set published_ports to at most 5/,
  );
  expect(await hostOf(id)).toEqual(before);
  expect((await on.patch(id, { parameters: { published_ports: 7 } })).status).toBe(200);
  expect(await hostOf(id)).toMatchObject({ ports: 7, port_block: 7 });
});
