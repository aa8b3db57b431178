import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Credentials } from '../../../src/http/osb/credentials-body.ts';
import type { Platform } from '../../lib/platform.ts';
import { type Figure, figure } from '../lib/figures.ts';
import { workflows } from '../../../src/operations/workflows.ts';
import { median } from '../lib/statistics.ts';
import { ping } from '../lib/engine-requests.ts';

/** `grown`: from the pool, and larger than its hosts. */
export const ways = ['cold', 'template', 'pool', 'grown'] as const;

export type Way = (typeof ways)[number];

/** One create, in milliseconds. */
export interface Sample {
  /** From the PUT of the instance until the platform knows that it is there: its answer, or last_operation. */
  readonly createMs: number;
  /** From the same moment to the first `_ping` through the gateway, bind included. */
  readonly pingMs: number;
  readonly synchronous: boolean;
  /** Time in each step, by the description of last_operation; empty unless the create was watched. */
  readonly steps: ReadonlyMap<string, number>;
}

/** Steps of a create, and their names in the figures. */
const stepNames: readonly [string, string][] = [
  ['prepare', 'disk_and_network_ms'],
  ['start', 'machine_ms'],
  ['identify', 'guest_and_identity_ms'],
  ['connect', 'engine_ms'],
];

export async function create(
  platform: Platform,
  way: Way,
  watch?: 'watched',
): Promise<{ instanceId: string; credentials: Credentials; sample: Sample }> {
  const instanceId = `bench-${randomUUID()}`;
  const begun = performance.now();
  const watcher = watch === undefined ? undefined : watchSteps(platform, instanceId);
  const { synchronous } = await platform.create(instanceId, 'bench', way);
  const createMs = performance.now() - begun;
  const steps = (await watcher?.end()) ?? new Map<string, number>();
  const credentials = await platform.bind(instanceId, 'first', way);
  while (!(await ping(credentials))) await delay(5);
  return {
    instanceId,
    credentials,
    sample: { createMs, pingMs: performance.now() - begun, synchronous, steps },
  };
}

/** How long last_operation reports each step; accurate to the polling interval. */
function watchSteps(platform: Platform, instanceId: string) {
  const times = new Map<string, number>();
  let going = true;
  const loop = async () => {
    let last = performance.now();
    while (going) {
      const description = await platform.progress(instanceId).catch(() => undefined);
      const now = performance.now();
      if (description !== undefined) times.set(description, (times.get(description) ?? 0) + now - last);
      last = now;
      await delay(10);
    }
  };
  const over = loop();
  return {
    async end() {
      going = false;
      await over;
      return times;
    },
  };
}

export function breakdown(way: Way, samples: readonly Sample[]): Figure[] {
  return stepNames.map(([step, name]) => {
    const words = workflows.provision.steps.find((one) => one.name === step)?.description;
    if (words === undefined) throw new Error(`a create has no step ${step}`);
    const times = samples.map(
      ({ steps }) => [...steps].find(([description]) => description.startsWith(words))?.[1] ?? 0,
    );
    return figure(`create.${way}.${name}`, median(times), 'ms');
  });
}
