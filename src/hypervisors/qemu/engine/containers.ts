import type { EngineAddress } from '../../../core/hypervisor/network.ts';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { askEngine } from './engine.ts';

/** A busy engine under emulation takes seconds to start a container. Milliseconds. */
const startTimeoutMs = 60_000;
/** More than any host runs; beyond it a guest is up to something. */
const mostContainers = 2_000;
const containerId = /^[0-9a-f]{64}$/;

/**
 * The ids of the containers that run, the oldest first: what needs another one was made after it.
 * @throws HypervisorError where the engine does not tell.
 */
export async function runningContainers(
  engine: EngineAddress,
  timeoutMs: number,
): Promise<readonly string[]> {
  // Without `all` the list is of those that run (Engine API, ContainerList); paused ones are among them.
  const { status, body } = await askEngine(engine, 'GET', '/containers/json', { timeoutMs });
  const list: unknown = status === 200 ? JSON.parse(body.toString('utf8')) : undefined;
  if (!Array.isArray(list)) throw new HypervisorError(`The engine listed no containers (${status})`);
  return (list as readonly { Id?: unknown }[])
    .map(({ Id: id }) => id)
    .filter((id): id is string => typeof id === 'string' && containerId.test(id))
    .slice(0, mostContainers)
    .reverse();
}

/**
 * Starts a container; one that runs is left alone.
 * @throws HypervisorError with what the engine says, where it can't be started or the engine does not answer.
 */
export async function startContainer(engine: EngineAddress, id: string): Promise<void> {
  const path = `/containers/${id}/start`;
  const { status, body } = await askEngine(engine, 'POST', path, { timeoutMs: startTimeoutMs });
  // 304: it runs already.
  if (status === 204 || status === 304) return;
  throw new HypervisorError(
    `The engine refused to start it (${status}): ${body.toString('utf8').slice(0, 500)}`,
  );
}
