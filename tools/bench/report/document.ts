import type { Figure, Report } from '../lib/figures.ts';
import { formatNumber } from './bar-chart.ts';
import { isReached, type Suite, suites, type Target, targets } from './targets.ts';

/** The document's content. */
export interface DocumentParts {
  readonly reports: ReadonlyMap<Suite, Report>;
  /** Written by hand; the key is the name of a figure or a suite. */
  readonly notes: ReadonlyMap<string, string>;
  /** Titles and paths of each suite's plots, relative to the document. */
  readonly plots: ReadonlyMap<Suite, readonly { readonly title: string; readonly path: string }[]>;
}

/**
 * Reads notes: a heading `## NAME` of level 2 for each figure or suite, followed by the text about it.
 * @throws Error if a heading names neither a suite nor a figure with a target: the report would not show the note.
 */
export function parseNotes(text: string): ReadonlyMap<string, string> {
  const notes = new Map<string, string>();
  for (const section of text.split(/^## /m).slice(1)) {
    const [heading = '', ...lines] = section.split('\n');
    const name = heading.trim();
    if (![...targets.map(({ figure }) => figure), ...suites].includes(name)) {
      throw new Error(
        `notes.md has a heading for ${name}, which has no target: name a suite, or a figure of the first table`,
      );
    }
    const note = lines.join('\n').trim();
    if (note !== '') notes.set(name, note);
  }
  return notes;
}

/** The report as Markdown, from its parts alone: the same parts give the same text. */
export function writeDocument(parts: DocumentParts): string {
  return [
    '# Figures',
    'Measured with `npm run bench -- SUITE --json docs/bench/SUITE.json` and put together by `npm run bench -- report`, which writes this page; the notes and reasons come from [bench/notes.md](bench/notes.md). Every suite measures the things that it compares alternately in one run. Each suite names its node: `kvm` means that the processor ran the guests, `tcg` that KVM was not usable and QEMU emulated them.',
    '## Targets',
    'For a node with 2 cores and 24 GiB, without KVM.',
    table(
      ['what', 'figure', 'target', 'measured', 'reached'],
      targets.map((target) => targetRow(target, measured(parts, target))),
    ),
    '## Targets not reached',
    notReached(parts),
    ...suites.flatMap((suite) => suiteSection(suite, parts)),
  ].join('\n\n');
}

function measured({ reports }: DocumentParts, { suite, figure }: Target): Figure | undefined {
  return reports.get(suite)?.figures.find(({ name }) => name === figure);
}

function targetRow(target: Target, figure: Figure | undefined): string[] {
  const { what, limit, value, unit } = target;
  return [
    what,
    `\`${target.figure}\``,
    `${limit} ${quantity(value, unit)}`,
    figure === undefined ? 'not measured' : quantity(figure.value, figure.unit),
    figure === undefined ? '' : isReached(target, figure.value) ? 'yes' : '**no**',
  ];
}

function notReached(parts: DocumentParts): string {
  const missed = targets.flatMap((target) => {
    const figure = measured(parts, target);
    if (figure !== undefined && isReached(target, figure.value)) return [];
    const reason = parts.notes.get(target.figure) ?? 'No reason is recorded yet (bench/notes.md).';
    const current = figure === undefined ? 'not measured' : quantity(figure.value, figure.unit);
    return [
      `### ${target.what}\n\n\`${target.figure}\` is ${current}; the target is ${target.limit} ${quantity(target.value, target.unit)}.\n\n${reason}`,
    ];
  });
  return missed.length === 0 ? 'All targets were reached.' : missed.join('\n\n');
}

function suiteSection(suite: Suite, parts: DocumentParts): string[] {
  const report = parts.reports.get(suite);
  const heading = `## Suite ${suite}`;
  const note = parts.notes.get(suite);
  if (report === undefined) {
    return [
      heading,
      `Missing: there is no docs/bench/${suite}.json. Make it with \`npm run bench -- ${suite} --json docs/bench/${suite}.json\`.`,
    ];
  }
  return [
    heading,
    `${report.date.slice(0, 10)}, on ${report.machine} ([raw data](bench/${suite}.json))`,
    ...(note === undefined ? [] : [note]),
    ...(parts.plots.get(suite) ?? []).map(({ title, path }) => `![${title}](${path})`),
    table(
      ['figure', 'value'],
      report.figures.map(({ name, value, unit }) => [`\`${name}\``, quantity(value, unit)]),
    ),
  ];
}

const quantity = (value: number, unit: string) =>
  ['ratio', 'count', 'each'].includes(unit) ? formatNumber(value) : `${formatNumber(value)} ${unit}`;

function table(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(heads), line(heads.map(() => '---')), ...rows.map(line)].join('\n');
}
