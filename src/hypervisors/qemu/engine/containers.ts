import { Ajv } from 'ajv';
import type { EngineAddress } from '../../../core/hypervisor/network.ts';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { askEngine } from './engine.ts';

/** A busy engine under emulation takes seconds to start a container. Milliseconds. */
const startTimeoutMs = 60_000;
/** Containers per question. Each takes 1 to 3 KiB, more with many labels. */
const pageSize = 100;
/** Bytes per answer: what a guest sends is parsed on the event loop, and this much takes milliseconds at most. */
const maxPageBytes = 512 * 1024;
/** No legitimate host runs more containers. */
const maxPages = 10;
/** An error message of the engine. */
const maxMessageBytes = 64 * 1024;

const listSchema = {
  type: 'array',
  maxItems: pageSize,
  items: {
    type: 'object',
    required: ['Id'],
    // The id becomes part of a request's path.
    properties: { Id: { type: 'string', pattern: '^[0-9a-f]{64}$' } },
  },
} as const;
const isContainerList = new Ajv().compile<readonly { readonly Id: string }[]>(listSchema);

/**
 * Ids of the running containers, oldest first, because a container that needs another was created after it. At most
 * 1,000, the newest.
 * @param timeoutMs for all questions together.
 * @throws HypervisorError if the engine does not list them.
 */
export async function runningContainers(
  engine: EngineAddress,
  timeoutMs: number,
): Promise<readonly string[]> {
  const deadline = performance.now() + timeoutMs;
  const newestFirst: string[] = [];
  for (let page = 0; page < maxPages; page += 1) {
    const ids = await listPage(engine, newestFirst.at(-1), Math.max(1, deadline - performance.now()));
    newestFirst.push(...ids);
    if (ids.length < pageSize) break;
  }
  return [...new Set(newestFirst)].reverse();
}

/** The newest running containers that are older than `before`, newest first. */
async function listPage(
  engine: EngineAddress,
  before: string | undefined,
  timeoutMs: number,
): Promise<readonly string[]> {
  // A limit includes stopped containers unless they are filtered out (Engine API, ContainerList). Without a limit and
  // filters the engine lists these three states.
  const filters = {
    status: ['running', 'paused', 'restarting'],
    ...(before !== undefined && { before: [before] }),
  };
  const path = `/containers/json?limit=${pageSize}&filters=${encodeURIComponent(JSON.stringify(filters))}`;
  const { status, body } = await askEngine(engine, {
    method: 'GET',
    path,
    timeoutMs,
    maxBytes: maxPageBytes,
  });
  const list = status === 200 ? parse(body) : undefined;
  if (!isContainerList(list)) throw new HypervisorError(`The engine listed no containers (${status})`);
  return list.map(({ Id: id }) => id);
}

function parse(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'));
  } catch (cause) {
    throw new HypervisorError("The engine's list of containers is not JSON", { cause });
  }
}

/**
 * Starts a container; a running one is left alone.
 * @throws HypervisorError with the engine's message if it can't be started or the engine does not answer.
 */
export async function startContainer(engine: EngineAddress, id: string): Promise<void> {
  const { status, body } = await askEngine(engine, {
    method: 'POST',
    path: `/containers/${id}/start`,
    timeoutMs: startTimeoutMs,
    maxBytes: maxMessageBytes,
  });
  // 304: already running.
  if (status === 204 || status === 304) return;
  throw new HypervisorError(
    `The engine refused to start the container (${status}): ${body.toString('utf8').slice(0, 500)}`,
  );
}
