/** The value that a figure should reach. */
export interface Target {
  readonly suite: Suite;
  readonly figure: string;
  readonly limit: 'at most' | 'at least';
  readonly value: number;
  readonly unit: string;
  readonly what: string;
}

/** All suites, in the order of the report. */
export const suites = ['provision', 'api', 'gateway', 'density', 'resize'] as const;
export type Suite = (typeof suites)[number];

const atMost = (suite: Suite, figure: string, value: number, unit: string, what: string): Target => ({
  ...{ suite, figure, limit: 'at most', value, unit, what },
});
const atLeast = (suite: Suite, figure: string, value: number, unit: string, what: string): Target => ({
  ...{ suite, figure, limit: 'at least', value, unit, what },
});

/** For a node with 2 cores and 24 GiB, without usable KVM. */
export const targets: readonly Target[] = [
  atMost('provision', 'create.pool.p50_ms', 300, 'ms', 'create from the pool, median'),
  atMost('provision', 'create.pool.p95_ms', 600, 'ms', 'create from the pool, 95th percentile'),
  atMost('provision', 'create.template.p50_ms', 800, 'ms', 'create from the template, median'),
  atLeast('provision', 'create.cold_over_pool', 100, 'ratio', 'cold boot compared with the pool'),
  atLeast('provision', 'create.cold_over_template', 40, 'ratio', 'cold boot compared with the template'),
  atLeast('provision', 'create.synchronous_share', 0.99, 'ratio', 'creates answered 201 at the refill rate'),
  atLeast(
    'provision',
    'create.refill_per_minute',
    20,
    '1/min',
    'the refill rate, during creates and deletes',
  ),
  atMost('provision', 'host.running.pss_mib', 140, 'MiB', 'memory of a running idle host, 10 at a time'),
  atMost('provision', 'host.paused.pss_mib', 50, 'MiB', 'memory of a paused host, 10 at a time'),
  atMost(
    'provision',
    'host.suspended.mem_available_mib',
    30,
    'MiB',
    'memory of a suspended host, as an idle one is after a minute, 10 at a time',
  ),
  atMost('provision', 'host.wake.p95_ms', 1000, 'ms', 'until a suspended host answers, 95th percentile'),
  atMost('provision', 'delete.p50_ms', 1000, 'ms', 'deprovision, median'),
  atMost('provision', 'unbind.cut.p95_ms', 200, 'ms', 'from unbind to refused and cut, 95th percentile'),
  atMost('api', 'bind.p50_ms', 10, 'ms', 'bind at concurrency 1, median'),
  atLeast('api', 'bind.per_s', 300, '1/s', 'binds at concurrency 32'),
  atLeast('api', 'last_operation.per_s', 2000, '1/s', 'last_operation'),
  atLeast('api', 'catalog.per_s', 4000, '1/s', 'catalog'),
  atMost('api', 'errors.5xx', 0, 'count', '5xx answers'),
  atMost('api', 'scale.100000_over_100', 1.25, 'ratio', 'medians with 100,000 instances compared with 100'),
  atLeast('gateway', 'gateway.throughput_over_haproxy', 0.8, 'ratio', 'throughput compared with HAProxy'),
  atMost('gateway', 'gateway.ping_added_ms', 1, 'ms', 'added to the median latency of a ping'),
  atMost('gateway', 'gateway.cut_100_streams_ms', 100, 'ms', 'from unbind to the last of 100 streams cut'),
  atMost('density', 'density.running.pss_mib', 140, 'MiB', 'memory of a running idle host among 30'),
  atMost('density', 'density.paused.pss_mib', 50, 'MiB', 'memory of a paused host among 100'),
  atLeast('density', 'density.paused_hosts', 100, 'count', 'paused hosts at the same time'),
  atMost('density', 'density.wake.p95_ms', 1000, 'ms', 'until a paused host answers, 95th percentile'),
  atMost('resize', 'resize.small_to_medium.p50_ms', 2000, 'ms', 'update from small to medium, median'),
  atMost('resize', 'resize.medium_to_large.p50_ms', 2000, 'ms', 'update from medium to large, median'),
  atMost(
    'resize',
    'resize.longest_silence_ms',
    1500,
    'ms',
    "longest silence of a container's log in updates",
  ),
  atMost('resize', 'template.loaded_mib', 512, 'MiB', 'memory of the loaded template'),
];

export const isReached = ({ limit, value }: Pick<Target, 'limit' | 'value'>, measured: number): boolean =>
  limit === 'at most' ? measured <= value : measured >= value;
