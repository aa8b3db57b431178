import supertest from 'supertest';
import { afterAll, beforeAll, beforeEach, expect, inject, it } from 'vitest';
import { createNodeRulesController } from '../../src/controllers/node-rules.ts';
import { createNodeRuleRecords } from '../../src/postgres/node-rules.ts';
import { createWorkerRecords } from '../../src/postgres/workers.ts';
import { makeTestBroker, operator, type TestBroker } from '../support/broker.ts';
import { createLineLogger } from '../support/logger.ts';

// That QEMU's rules are found and put back: test/hypervisors/qemu/network/network.vm.test.ts.
let broker: TestBroker;
let repair: () => Promise<readonly string[]>;
let foreign: readonly string[] = [];
const { logger, lines } = createLineLogger();
const name = 'node/abcd';

beforeAll(async () => {
  broker = await makeTestBroker(inject('postgres'));
  await createWorkerRecords(broker.database).report({
    ...{ name, hypervisor: 'simulated', templates: [], imageVersion: '1.0.0' },
    ...{ memoryAvailableMib: 1, memoryTotalMib: undefined },
  });
});
afterAll(() => broker.stop());
beforeEach(() => {
  foreign = [];
  lines.length = 0;
});

const newController = (records = createNodeRuleRecords(broker.database)) =>
  createNodeRulesController({
    hypervisor: { repairNode: async () => ({ altered: await repair(), foreign }) },
    records,
    name,
    logger,
  });
const ask = (route: string) => supertest(broker.mgmt).get(route).auth(operator.username, operator.password);
const health = async () => (await ask('/mgmt/health')).body as { problems: string[]; notices: string[] };
const rulesProblems = async () =>
  (await health()).problems.filter((problem) => problem.includes('network rules'));

it('node rules: a repair is logged, and shown in health, with the hosts and in metrics', async () => {
  // Fails without recording it.
  repair = () => Promise.resolve([]);
  const controller = newController();
  await controller.runOnce();
  expect((await health()).notices).toEqual([]);
  repair = () => Promise.resolve(['missing: table inet berth_abcd', 'net.ipv4.ip_forward was not 1']);
  await controller.runOnce();
  await controller.runOnce();
  expect(lines).toHaveLength(2);
  expect(lines[0]?.details).toEqual({ event: 'node.rules_repaired', altered: await repair() });
  const notice =
    /node\/abcd were missing or altered .* 2 times, last at .*\(missing: table inet berth_abcd; net/;
  expect((await health()).notices).toEqual([expect.stringMatching(notice)]);
  const hosts = await ask('/mgmt/hosts');
  expect((hosts.body as { notices: string[] }).notices).toEqual([expect.stringMatching(notice)]);
  expect((await ask('/mgmt/metrics')).text).toContain('berth_node_rules_repairs_total{worker="node/abcd"} 2');
  expect(await rulesProblems()).toEqual([]);

  // After a day it is in metrics only.
  await broker.database('node_rules').update({
    repaired_at: broker.database.raw(`clock_timestamp() - interval '25 hours'`),
  });
  expect((await health()).notices).toEqual([]);
  expect((await ask('/mgmt/metrics')).text).toContain('berth_node_rules_repairs_total{worker="node/abcd"} 2');
});

it('node rules: that they cannot be put back is a problem until they can, also by a new worker process', async () => {
  // Fails without recording the failure, and without clearing it at the first success.
  repair = () => Promise.reject(new Error('nft is broken'));
  await expect(newController().runOnce()).rejects.toThrow('nft is broken');
  expect(await rulesProblems()).toEqual([expect.stringContaining('nft is broken')]);
  repair = () => Promise.resolve([]);
  await newController().runOnce();
  expect(await rulesProblems()).toEqual([]);
});

it('node rules: the failure of a worker that has ended is not reported', async () => {
  repair = () => Promise.reject(new Error('nft is broken'));
  await expect(newController().runOnce()).rejects.toThrow();
  await broker.database('workers').update({
    seen_at: broker.database.raw(`clock_timestamp() - interval '1 minute'`),
  });
  expect(await rulesProblems()).toEqual([]);
});

it('node rules: a repair is recorded later if Postgres does not answer', async () => {
  // Fails if an unrecorded repair is forgotten.
  const records = createNodeRuleRecords(broker.database);
  let isDown = true;
  const controller = newController({
    ...records,
    recordInForce: (...given) =>
      isDown ? Promise.reject(new Error('down')) : records.recordInForce(...given),
  });
  repair = () => Promise.resolve(['missing: one']);
  await expect(controller.runOnce()).rejects.toThrow('down');
  isDown = false;
  repair = () => Promise.resolve([]);
  await controller.runOnce();
  expect((await health()).notices).toEqual([expect.stringContaining('(missing: one)')]);
});

it('node rules: chains that another program adds are logged, and are neither a repair nor a problem', async () => {
  // Fails without the log line.
  const repairs = () => broker.database('node_rules').select<{ repairs: number }[]>('repairs');
  const before = await repairs();
  repair = () => Promise.resolve([]);
  foreign = ['chain before of table ip other: nat, hook prerouting'];
  await newController().runOnce();
  expect(lines).toEqual([
    {
      details: { event: 'node.foreign_chains', foreign },
      message: expect.stringContaining('Another program') as string,
    },
  ]);
  expect(await repairs()).toEqual(before);
  expect(await rulesProblems()).toEqual([]);
});
