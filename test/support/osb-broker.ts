import { randomUUID } from 'node:crypto';
import { expect } from 'vitest';
import { workflows } from '../../src/operations/workflows.ts';
import { binding, hints, ids, instance, makeTestBroker, provisionBody } from './broker.ts';
import { eventually } from './eventually.ts';
import { createFaultControl } from './fault-control.ts';

type Method = 'get' | 'put' | 'patch' | 'delete';
export type Body = Record<string, unknown>;

export const accepting = 'accepts_incomplete=true';
/** Clients compare these literally (docs/osb.md 6). */
export const asyncRequired = {
  error: 'AsyncRequired',
  description: 'This service plan requires client support for asynchronous service operations.',
};
export const concurrencyError = {
  error: 'ConcurrencyError',
  description: 'The Service Broker does not support concurrent requests that mutate the same resource.',
};
export const maintenanceInfoConflict = {
  error: 'MaintenanceInfoConflict',
  description: 'The maintenance information for the requested Service Plan has changed.',
};

type BrokerOptions = Omit<NonNullable<Parameters<typeof makeTestBroker>[1]>, 'faults'>;

/** A broker with a worker, and a client for the tests of the OSB rules (docs/osb.md). One for each test file. */
export async function makeOsbBroker(server: string, options: BrokerOptions = {}) {
  const faults = createFaultControl();
  const broker = await makeTestBroker(server, { ...options, faults: faults.hypervisorFaults });
  const worker = broker.startWorker();

  /** @param as.version API version, 2.17 by default; `as.wait` false: as with BERTH_SYNC_WAIT_MS=0. */
  async function ask(
    method: Method,
    route: string,
    body?: object,
    as: { version?: string; wait?: boolean; headers?: Record<string, string> } = {},
  ) {
    const request = (as.wait === false ? broker.askAsynchronous : broker.ask)(method, route)
      .set('X-Broker-API-Version', as.version ?? '2.17')
      .set(as.headers ?? {});
    const answer = await (body === undefined ? request : request.send(body));
    return {
      status: answer.status,
      body: answer.body as Body,
      /** The raw body. */
      text: answer.text,
      headers: answer.headers as Record<string, string>,
    };
  }
  const put = (id: string, change: object = {}, query = `?${accepting}`) =>
    ask('put', `${instance(id)}${query}`, { ...provisionBody, ...change });
  const patch = (id: string, change: object, query = `?${accepting}`) =>
    ask('patch', `${instance(id)}${query}`, { service_id: ids.service, ...change });
  const get = (id: string, query = '') => ask('get', `${instance(id)}${query}`);
  const remove = (id: string, query = `?${accepting}&${hints}`) => ask('delete', `${instance(id)}${query}`);
  const last = (id: string, query = '') => ask('get', `${instance(id)}/last_operation${query}`);
  const bind = (id: string, bindingId: string, change: object = {}) =>
    ask('put', binding(id, bindingId), { service_id: ids.service, plan_id: ids.plan, ...change });
  const unbind = (id: string, bindingId: string, query = `?${hints}`) =>
    ask('delete', `${binding(id, bindingId)}${query}`);

  const ended = (id: string) =>
    eventually('the operation has ended', async () => {
      const { body } = await last(id);
      return body['state'] === 'in progress' ? undefined : body;
    });
  /** Like `ended`, but skips the worker's back-off after a failed step. */
  const endedWithoutBackoff = (id: string) =>
    eventually('the operation has ended', async () => {
      const now = broker.database.raw('clock_timestamp()');
      await broker.database('operations').where({ state: 'in progress' }).update({ run_after: now });
      worker.wake();
      const { body } = await last(id);
      return body['state'] === 'in progress' ? undefined : body;
    });
  const newInstance = async (change: object = {}) => {
    const id = randomUUID();
    expect((await put(id, change)).status).toBe(201);
    return id;
  };
  const operationOf = (answer: { status: number; body: Body }) => {
    expect(answer.status).toBe(202);
    return String(answer.body['operation']);
  };

  /** Runs `run` while the operation that `begin` starts is blocked in `act`. */
  async function during(
    act: 'start' | 'grow' | 'destroy',
    id: string,
    begin: () => ReturnType<typeof ask>,
    run: (operation: string) => Promise<void>,
  ) {
    faults.block(act);
    try {
      const operation = operationOf(await begin());
      await faults.reached(act);
      await run(operation);
    } finally {
      faults.unblock();
    }
    await ended(id);
  }
  const asynchronous = { wait: false };
  const duringCreate = (id: string, run: (operation: string) => Promise<void>) =>
    during('start', id, () => ask('put', `${instance(id)}?${accepting}`, provisionBody, asynchronous), run);
  const duringUpdate = (id: string, run: (operation: string) => Promise<void>) =>
    during(
      'grow',
      id,
      () =>
        ask(
          'patch',
          `${instance(id)}?${accepting}`,
          { service_id: ids.service, plan_id: ids.otherPlan },
          asynchronous,
        ),
      run,
    );
  const duringDelete = (id: string, run: (operation: string) => Promise<void>) =>
    during(
      'destroy',
      id,
      () => ask('delete', `${instance(id)}?${accepting}&${hints}`, undefined, asynchronous),
      run,
    );

  /** Starts an update to another plan with the same disk size that fails and is rolled back. */
  async function failUpdate(id: string) {
    faults.fail('connect', workflows.update.attempts);
    const begun = await ask(
      'patch',
      `${instance(id)}?${accepting}`,
      { service_id: ids.service, plan_id: ids.otherPlan },
      asynchronous,
    );
    operationOf(begun);
    expect((await endedWithoutBackoff(id))['state']).toBe('failed');
  }
  /** Starts a create that fails and cleans up. */
  async function failCreate(id: string) {
    faults.fail('start', workflows.provision.attempts);
    operationOf(await ask('put', `${instance(id)}?${accepting}`, provisionBody, asynchronous));
    expect((await endedWithoutBackoff(id))['state']).toBe('failed');
  }

  /** All rows of all tables, except the audit trail: that records refused requests as well. */
  async function tables(): Promise<Record<string, unknown[]>> {
    const { rows } = await broker.database.raw<{ rows: { name: string }[] }>(
      `SELECT tablename AS name FROM pg_tables WHERE schemaname = current_schema()
         AND tablename <> 'audit' AND tablename NOT LIKE 'knex%' ORDER BY 1`,
    );
    const dump: Record<string, unknown[]> = {};
    for (const { name } of rows) {
      const of = await broker.database.raw<{ rows: { row: unknown }[] }>(
        `SELECT to_jsonb(t) AS row FROM ?? AS t ORDER BY to_jsonb(t)::text`,
        [name],
      );
      dump[name] = of.rows.map(({ row }) => row);
    }
    return dump;
  }

  return {
    ...{ broker, worker, faults, ask, put, patch, get, remove, last, bind, unbind },
    ...{
      ended,
      endedWithoutBackoff,
      newInstance,
      operationOf,
      duringCreate,
      duringUpdate,
      duringDelete,
      failUpdate,
      failCreate,
      tables,
    },
    async stop() {
      faults.unblock();
      await broker.stop();
    },
  };
}

export type OsbBroker = Awaited<ReturnType<typeof makeOsbBroker>>;
