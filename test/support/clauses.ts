import { randomUUID } from 'node:crypto';
import { expect } from 'vitest';
import { workflows } from '../../src/operations/workflows.ts';
import { binding, hints, ids, instance, makeTestBroker, provisionBody } from './broker.ts';
import { eventually } from './eventually.ts';
import { createHolds } from './holds.ts';

type Method = 'get' | 'put' | 'patch' | 'delete';
export type Body = Record<string, unknown>;

export const accepting = 'accepts_incomplete=true';
/** Clients compare these to the letter (docs/osb.md 6). */
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

/** A broker with a worker, and what the tests of the clauses say to it. One for each file. */
export async function makeClauseBroker(server: string, options: BrokerOptions = {}) {
  const holds = createHolds();
  const broker = await makeTestBroker(server, { ...options, faults: holds.faults });
  const worker = broker.startWorker();

  /** @param as.version of the API, 2.17 where it is left out; `as.wait`: not at all where false. */
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
      /** The body to the letter. */
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
  /** The same without the pauses that a worker makes after a step that has failed. */
  const endedInHaste = (id: string) =>
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

  /** Runs `run` while a worker stands in the middle of an operation that `begin` has begun. */
  async function during(
    act: 'start' | 'stop' | 'destroy',
    id: string,
    begin: () => ReturnType<typeof ask>,
    run: (operation: string) => Promise<void>,
  ) {
    holds.hold(act);
    try {
      const operation = operationOf(await begin());
      await holds.reached(act);
      await run(operation);
    } finally {
      holds.letGo();
    }
    await ended(id);
  }
  const whole = { wait: false };
  const duringCreate = (id: string, run: (operation: string) => Promise<void>) =>
    during('start', id, () => ask('put', `${instance(id)}?${accepting}`, provisionBody, whole), run);
  const duringUpdate = (id: string, run: (operation: string) => Promise<void>) =>
    during(
      'stop',
      id,
      () =>
        ask(
          'patch',
          `${instance(id)}?${accepting}`,
          { service_id: ids.service, plan_id: ids.otherPlan },
          whole,
        ),
      run,
    );
  const duringDelete = (id: string, run: (operation: string) => Promise<void>) =>
    during(
      'destroy',
      id,
      () => ask('delete', `${instance(id)}?${accepting}&${hints}`, undefined, whole),
      run,
    );

  /** An update that fails, and goes back; to another plan of the same disk. */
  async function failUpdate(id: string) {
    holds.fail('reshape', workflows.update.attempts);
    const begun = await ask(
      'patch',
      `${instance(id)}?${accepting}`,
      { service_id: ids.service, plan_id: ids.otherPlan },
      whole,
    );
    operationOf(begun);
    expect((await endedInHaste(id))['state']).toBe('failed');
  }
  /** A create that fails, and cleans up. */
  async function failCreate(id: string) {
    holds.fail('start', workflows.provision.attempts);
    operationOf(await ask('put', `${instance(id)}?${accepting}`, provisionBody, whole));
    expect((await endedInHaste(id))['state']).toBe('failed');
  }

  /** Everything on record but what is recorded of each request, refused ones included. */
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
    ...{ broker, worker, holds, ask, put, patch, get, remove, last, bind, unbind },
    ...{
      ended,
      endedInHaste,
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
      holds.letGo();
      await broker.stop();
    },
  };
}

export type ClauseBroker = Awaited<ReturnType<typeof makeClauseBroker>>;
