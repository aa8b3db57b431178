import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { drawBars } from '../../tools/bench/report/bar-chart.ts';
import { writeReport } from '../../tools/bench/report/write-report.ts';

const gateway = {
  suite: 'gateway',
  machine: '2 × A processor, 24 GiB, Linux 6.1, QEMU 7.2.22 (tcg), Node v20',
  date: '2026-11-23T20:00:00.000Z',
  figures: [
    { name: 'gateway.load.direct.mib_per_s', value: 1200, unit: 'MiB/s' },
    { name: 'gateway.load.haproxy.mib_per_s', value: 500, unit: 'MiB/s' },
    { name: 'gateway.load.berth.mib_per_s', value: 350, unit: 'MiB/s' },
    { name: 'gateway.throughput_over_haproxy', value: 0.7, unit: 'ratio' },
    { name: 'gateway.ping_added_ms', value: 1, unit: 'ms' },
    { name: 'gateway.cut_100_streams_ms', value: 100.5, unit: 'ms' },
  ],
};

let docs: string;

beforeEach(async () => {
  docs = await mkdtemp(path.join(tmpdir(), 'berth-report-'));
  await mkdir(path.join(docs, 'bench'));
  onTestFinished(() => rm(docs, { recursive: true, force: true }));
});

const inBench = (name: string) => path.join(docs, 'bench', name);
const put = (name: string, content: unknown) =>
  writeFile(inBench(name), typeof content === 'string' ? content : JSON.stringify(content));
const report = () => readFile(path.join(docs, 'bench.md'), 'utf8');
/** The cells of a row in the table of targets. */
const row = async (figure: string) =>
  (await report())
    .split('\n')
    .find((line) => line.includes(`| \`${figure}\` | at `))
    ?.split('|')
    .map((cell) => cell.trim())
    .slice(3, -1);

describe('bench report', () => {
  it('bench report: compares figures with targets (at least, at most, exactly)', async () => {
    await put('gateway.json', gateway);
    await writeReport(docs);
    expect(await row('gateway.throughput_over_haproxy')).toEqual(['at least 0.8', '0.7', '**no**']);
    expect(await row('gateway.ping_added_ms')).toEqual(['at most 1 ms', '1 ms', 'yes']);
    expect(await row('gateway.cut_100_streams_ms')).toEqual(['at most 100 ms', '100.5 ms', '**no**']);
    expect(await row('bind.p50_ms')).toEqual(['at most 10 ms', 'not measured', '']);
    const text = await report();
    expect(text).toContain(`2026-11-23, on ${gateway.machine}`);
    expect(text).toContain('| `gateway.load.direct.mib_per_s` | 1,200 MiB/s |');
  });

  it('bench report: names missing suites and the command that measures them', async () => {
    await put('gateway.json', gateway);
    expect(await writeReport(docs)).toEqual(['provision', 'api', 'density', 'resize']);
    const text = await report();
    expect(text).toContain('npm run bench -- density --json docs/bench/density.json');
    expect(text).not.toContain('npm run bench -- gateway --json docs/bench/gateway.json');
  });

  it('bench report: keeps the hand-written reason for a missed target', async () => {
    const notes = '# Reasons\n\n## gateway.throughput_over_haproxy\n\nNode copies each record twice.\n';
    await put('gateway.json', gateway);
    await put('notes.md', notes);
    await writeReport(docs);
    await writeReport(docs);
    const [, missed = ''] = (await report()).split('## Targets not reached');
    expect(missed).toContain(
      '`gateway.throughput_over_haproxy` is 0.7; the target is at least 0.8.\n\nNode copies each record twice.',
    );
    expect(missed).toMatch(/gateway\.cut_100_streams_ms` is 100\.5 ms.*\n\nNo reason is recorded yet/);
    expect(missed).not.toContain('`gateway.ping_added_ms` is');
    expect(await readFile(inBench('notes.md'), 'utf8')).toBe(notes);
  });

  it("bench report: puts a suite's notes into its section", async () => {
    await put('gateway.json', gateway);
    await put('notes.md', '## gateway\n\nOn a slow day.\n');
    await writeReport(docs);
    const [, section = ''] = (await report()).split('## Suite gateway');
    expect(section).toMatch(/bench\/gateway\.json\)\)\n\nOn a slow day\.\n/);
  });

  it('bench report: the same input gives the same report and plots', async () => {
    await put('gateway.json', gateway);
    await writeReport(docs);
    const before = [await report(), await readFile(inBench('gateway-load.svg'), 'utf8')];
    await writeReport(docs);
    expect([await report(), await readFile(inBench('gateway-load.svg'), 'utf8')]).toEqual(before);
    expect(before[0]).toContain('](bench/gateway-load.svg)');
  });

  it('bench report: removes only plots of suites that are not measured any more', async () => {
    await put('gateway.json', gateway);
    await put('density-containers.svg', '<svg/>');
    await put('picture.png', 'kept');
    await writeReport(docs);
    expect((await readdir(path.join(docs, 'bench'))).sort()).toEqual([
      'gateway-load.svg',
      'gateway.json',
      'picture.png',
    ]);
  });

  it.each([
    ['is not JSON', '{'],
    ['does not contain the figures', { ...gateway, suite: 'density' }],
    ['does not contain the figures', { ...gateway, figures: [{ name: 'one', value: '1', unit: 'ms' }] }],
  ])('report: names a file that %s, and leaves the former report unchanged', async (problem, content) => {
    await put('gateway.json', content);
    await writeFile(path.join(docs, 'bench.md'), 'former');
    await expect(writeReport(docs)).rejects.toThrow(
      new RegExp(`gateway\\.json ${problem}.*npm run bench -- gateway`),
    );
    expect(await report()).toBe('former');
  });

  it('bench report: refuses a note that belongs to no section', async () => {
    await put('notes.md', '## gateway.throughput\n\nMisspelt.\n');
    await expect(writeReport(docs)).rejects.toThrow(
      'has a heading for gateway.throughput, which has no target',
    );
  });
});

describe('bar chart', () => {
  const widths = (svg: string) =>
    [...svg.matchAll(/class="bar"[^>]* width="([\d.]+)"/g)].map(([, w]) => Number(w));

  it('bar chart: bars are proportional to their values, the longest fills the width', () => {
    const [one = 0, two = 0] = widths(
      drawBars({
        title: 't',
        scale: 'linear',
        bars: [
          { label: 'a', value: 50 },
          { label: 'b', value: 200 },
        ],
      }),
    );
    expect(two / one).toBeCloseTo(4, 1);
    expect(two).toBe(450);
  });

  it('bar chart: a logarithmic scale gives equal steps to equal ratios, and every bar a length', () => {
    const bars = [1, 10, 100].map((value) => ({ label: String(value), value }));
    const [one = 0, two = 0, three = 0] = widths(drawBars({ title: 't', scale: 'logarithmic', bars }));
    expect(one).toBeGreaterThan(0);
    expect(two - one).toBeCloseTo(three - two, 0);
  });

  it('bar chart: marks targets within its width and supports light and dark mode', () => {
    const svg = drawBars({ title: 'x', scale: 'linear', bars: [{ label: 'a', value: 50, target: 100 }] });
    expect(widths(svg)).toEqual([225]);
    expect(svg).toContain('<line class="target" x1="620"');
    expect(svg).toContain('prefers-color-scheme: dark');
  });

  it('bar chart: escapes labels', () => {
    const svg = drawBars({ title: '<a> & "b"', scale: 'linear', bars: [{ label: '<script>', value: 0 }] });
    expect(svg).toContain('&lt;script&gt;');
    expect(svg).toContain('aria-label="&lt;a&gt; &amp; &quot;b&quot;"');
    expect(svg).not.toMatch(/NaN|Infinity|<script>/);
  });
});
