import type { Figure } from '../lib/figures.ts';
import type { Bar, BarChart } from './bar-chart.ts';
import { type Suite, targets } from './targets.ts';

interface Plot {
  readonly suite: Suite;
  readonly name: string;
  readonly title: string;
  readonly scale: BarChart['scale'];
  readonly bars: readonly { readonly figure: string; readonly label: string }[];
}

const percentiles = (figure: string, label: string) => [
  { figure: `${figure}.p50_ms`, label: `${label}, median` },
  { figure: `${figure}.p95_ms`, label: `${label}, p95` },
];
const threeWays = (before: string, after: string) => [
  { figure: `${before}.direct.${after}`, label: 'no gateway' },
  { figure: `${before}.haproxy.${after}`, label: 'HAProxy' },
  { figure: `${before}.berth.${after}`, label: 'Berth' },
];

const plots: readonly Plot[] = [
  {
    suite: 'provision',
    name: 'create',
    title: 'From PUT to the first answer through the gateway (ms, logarithmic)',
    scale: 'logarithmic',
    bars: [
      ...percentiles('create.cold', 'cold boot'),
      ...percentiles('create.template', 'template'),
      ...percentiles('create.pool', 'pool'),
    ],
  },
  {
    suite: 'provision',
    name: 'memory',
    title: 'Memory of one idle host (MiB, PSS)',
    scale: 'linear',
    bars: [
      { figure: 'host.running.pss_mib', label: 'running' },
      { figure: 'host.paused.pss_mib', label: 'paused' },
    ],
  },
  {
    suite: 'api',
    name: 'throughput',
    title: 'Requests per second, api on one core',
    scale: 'linear',
    bars: [
      { figure: 'bind.per_s', label: 'bind' },
      { figure: 'last_operation.per_s', label: 'last_operation' },
      { figure: 'catalog.per_s', label: 'catalog' },
    ],
  },
  {
    suite: 'gateway',
    name: 'load',
    title: 'docker load into the stand-in (MiB/s)',
    scale: 'linear',
    bars: threeWays('gateway.load', 'mib_per_s'),
  },
  {
    suite: 'gateway',
    name: 'ping',
    title: '_ping over an open connection (ms, median)',
    scale: 'linear',
    bars: threeWays('gateway.ping', 'p50_ms'),
  },
  {
    suite: 'provision',
    name: 'docker-run',
    title: 'docker run of one image (ms, median, logarithmic)',
    scale: 'logarithmic',
    bars: [
      { figure: 'docker_run.host.p50_ms', label: 'in a host' },
      { figure: 'docker_run.native.p50_ms', label: 'on the node itself' },
    ],
  },
  {
    suite: 'density',
    name: 'memory',
    title: 'Memory of one host among others (MiB, PSS)',
    scale: 'linear',
    bars: [
      { figure: 'density.running.pss_mib', label: 'running idle' },
      { figure: 'density.paused.pss_mib', label: 'paused' },
    ],
  },
  {
    suite: 'density',
    name: 'containers',
    title: '100 containers (MiB, PSS)',
    scale: 'linear',
    bars: [
      { figure: 'density.containers_100_pss_mib', label: 'in one host' },
      { figure: 'density.hosts_100_pss_mib', label: 'in a host each' },
    ],
  },
  {
    suite: 'resize',
    name: 'updates',
    title: 'From PATCH until docker info shows the new size (ms)',
    scale: 'linear',
    bars: [
      ...percentiles('resize.small_to_medium', 'small to medium'),
      ...percentiles('resize.medium_to_large', 'medium to large'),
    ],
  },
];

/** A suite's plots of the measured figures, without plots that would have fewer than two bars. */
export function plotsOf(suite: Suite, figures: readonly Figure[]): { name: string; chart: BarChart }[] {
  return plots
    .filter((plot) => plot.suite === suite)
    .map(({ name, title, scale, bars }) => ({ name, chart: { title, scale, bars: measured(bars, figures) } }))
    .filter(({ chart }) => chart.bars.length > 1);
}

function measured(bars: Plot['bars'], figures: readonly Figure[]): Bar[] {
  return bars.flatMap(({ figure, label }) => {
    const value = figures.find(({ name }) => name === figure)?.value;
    if (value === undefined) return [];
    const target = targets.find((one) => one.figure === figure)?.value;
    return [{ label, value, ...(target !== undefined && { target }) }];
  });
}
