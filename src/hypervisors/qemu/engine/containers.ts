import type { EngineAddress } from '../../../core/hypervisor/network.ts';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { askEngine } from './engine.ts';

/** A busy engine under emulation takes seconds to start a container. Milliseconds. */
const startTimeoutMs = 60_000;
/** Limit for a guest's list; no legitimate host runs as many containers. */
const maxContainers = 2_000;
const containerId = /^[0-9a-f]{64}$/;

/**
 * Ids of the running containers, oldest first, because a container that needs another was created after it.
 * @throws HypervisorError if the engine does not list them.
 */
export async function runningContainers(
  engine: EngineAddress,
  timeoutMs: number,
): Promise<readonly string[]> {
  // Without `all` the engine lists running containers, paused ones included (Engine API, ContainerList).
  const { status, body } = await askEngine(engine, 'GET', '/containers/json', { timeoutMs });
  const list: unknown = status === 200 ? JSON.parse(body.toString('utf8')) : undefined;
  if (!Array.isArray(list)) throw new HypervisorError(`The engine listed no containers (${status})`);
  return (list as readonly { Id?: unknown }[])
    .map(({ Id: id }) => id)
    .filter((id): id is string => typeof id === 'string' && containerId.test(id))
    .slice(0, maxContainers)
    .reverse();
}

/**
 * Starts a container; a running one is left alone.
 * @throws HypervisorError with the engine's message if it can't be started or the engine does not answer.
 */
export async function startContainer(engine: EngineAddress, id: string): Promise<void> {
  const path = `/containers/${id}/start`;
  const { status, body } = await askEngine(engine, 'POST', path, { timeoutMs: startTimeoutMs });
  // 304: already running.
  if (status === 204 || status === 304) return;
  throw new HypervisorError(
    `The engine refused to start the container (${status}): ${body.toString('utf8').slice(0, 500)}`,
  );
}
