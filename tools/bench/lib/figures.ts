import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { cpus, release, totalmem } from 'node:os';
import { promisify } from 'node:util';

export interface Figure {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
}

/** The result of one suite, as docs/bench/SUITE.json stores it. */
export interface Report {
  readonly suite: string;
  /** The node, in one line; stored files call it `machine`. */
  readonly machine: string;
  /** ISO 8601. */
  readonly date: string;
  readonly figures: readonly Figure[];
}

export const figure = (name: string, value: number, unit: string): Figure => ({
  name,
  value: Number(value.toPrecision(4)),
  unit,
});

/** The node's processors, memory, kernel and Node version, in one line. */
export function describeNode(): string {
  const memory = (totalmem() / 1024 ** 3).toFixed(0);
  return `${cpus().length} × ${cpus()[0]?.model ?? '?'}, ${memory} GiB, Linux ${release()}, Node ${process.version}`;
}

/** {@link describeNode}, with QEMU's version and accelerator. */
export async function describeNodeWithQemu(accelerator: string): Promise<string> {
  const { stdout } = await promisify(execFile)('qemu-system-x86_64', ['--version']);
  const qemu = /version (\S+)/.exec(stdout)?.[1] ?? '?';
  return `${describeNode()}, QEMU ${qemu} (${accelerator})`;
}

/** Prints the figures, and saves them if a file is named. */
export async function publish(report: Report, file: string | undefined): Promise<void> {
  const widest = Math.max(...report.figures.map(({ name }) => name.length));
  process.stdout.write(`\n${report.suite}: ${report.machine}\n\n`);
  for (const { name, value, unit } of report.figures) {
    process.stdout.write(`  ${name.padEnd(widest)}  ${String(value).padStart(9)} ${unit}\n`);
  }
  await save(report, file);
}

/** Saves the figures as JSON if a file is named. */
export async function save(report: Report, file: string | undefined): Promise<void> {
  if (file !== undefined) await writeFile(file, `${JSON.stringify(report, undefined, 2)}\n`);
}
