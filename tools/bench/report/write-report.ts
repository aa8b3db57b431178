import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { Report } from '../lib/figures.ts';
import { drawBars } from './bar-chart.ts';
import { parseNotes, writeDocument } from './document.ts';
import { plotsOf } from './plots.ts';
import { type Suite, suites } from './targets.ts';

/**
 * Writes `bench.md` and its plots from the suites' files in `bench/`, all in this directory.
 * @returns the suites that are missing.
 * @throws Error if a file is damaged; the previous report is then unchanged.
 */
export async function writeReport(docsDirectory: string): Promise<readonly Suite[]> {
  const directory = path.join(docsDirectory, 'bench');
  await mkdir(directory, { recursive: true });
  const reports = new Map<Suite, Report>();
  for (const suite of suites) {
    const report = await readReport(path.join(directory, `${suite}.json`), suite);
    if (report !== undefined) reports.set(suite, report);
  }
  const notes = parseNotes((await readIfThere(path.join(directory, 'notes.md'))) ?? '');
  const files = new Map<string, string>();
  const plots = new Map<Suite, { title: string; path: string }[]>();
  for (const [suite, { figures }] of reports) {
    plots.set(
      suite,
      plotsOf(suite, figures).map(({ name, chart }) => {
        const file = `${suite}-${name}.svg`;
        files.set(file, drawBars(chart));
        return { title: chart.title, path: `bench/${file}` };
      }),
    );
  }
  const text = writeDocument({ reports, notes, plots });
  for (const name of await readdir(directory)) {
    if (name.endsWith('.svg') && !files.has(name)) await rm(path.join(directory, name));
  }
  for (const [name, content] of files) await writeFile(path.join(directory, name), content);
  await writeFile(path.join(docsDirectory, 'bench.md'), `${text}\n`);
  return suites.filter((suite) => !reports.has(suite));
}

async function readReport(file: string, suite: Suite): Promise<Report | undefined> {
  const text = await readIfThere(file);
  if (text === undefined) return undefined;
  const remedy = `make it again with npm run bench -- ${suite} --json ${file}`;
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (cause) {
    throw new Error(`${file} is not JSON: ${remedy}`, { cause });
  }
  if (!isReport(content) || content.suite !== suite) {
    throw new Error(`${file} does not contain the figures of suite ${suite}: ${remedy}`);
  }
  return content;
}

function isReport(content: unknown): content is Report {
  const { suite, machine, date, figures } = (content ?? {}) as Partial<Record<keyof Report, unknown>>;
  return (
    [suite, machine, date].every((text) => typeof text === 'string') &&
    Array.isArray(figures) &&
    figures.every(
      (one: Partial<Record<string, unknown>> | null) =>
        typeof one?.['name'] === 'string' &&
        typeof one['value'] === 'number' &&
        typeof one['unit'] === 'string',
    )
  );
}

async function readIfThere(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
