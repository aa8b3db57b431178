import { execFile } from 'node:child_process';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, it } from 'vitest';
import { createLogger } from '../../src/processes/logger.ts';
import { compiled } from '../support/build.ts';

/** C0 and C1 controls, a direction override, a line separator, a quote. */
const hostile = 'a\u001b[2J\n{"level":50}\u009b31m\u007f\u202e\u2028"b';
const unprintable = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u;

/** What a log writes, call by call. */
function record(act: (logger: ReturnType<typeof createLogger>) => void): string[] {
  const written: string[] = [];
  act(createLogger('test', 'debug', { write: (line) => written.push(line) }));
  return written;
}

/** Expects one line, printable and short, and returns what a program reads from it. */
function entryOf([line = '', ...others]: string[]): Record<string, unknown> {
  expect(others).toEqual([]);
  expect(line.endsWith('\n')).toBe(true);
  expect(line.slice(0, -1)).not.toMatch(unprintable);
  expect(line.length).toBeLessThanOrEqual(16 * 1024 + 1);
  return JSON.parse(line) as Record<string, unknown>;
}

// Fails without the escape: pino writes C1 controls and direction overrides as they are.
it('log: text from outside is one printable line, and unchanged for a program that parses it', () => {
  const entry = entryOf(
    record((logger) => {
      logger.child({ request: hostile }).warn({ text: hostile, err: new Error(hostile) }, hostile);
    }),
  );
  expect(entry).toMatchObject({ request: hostile, text: hostile, msg: hostile, process: 'test', level: 40 });
  expect(entry['err']).toMatchObject({ message: hostile });
  expect(entry).not.toHaveProperty('shortened');
});

const many = <T>(count: number, value: (index: number) => T) =>
  Array.from({ length: count }, (_, i) => value(i));

// Fails without the limit: a line was as long as what it quoted.
it.each<[string, object]>([
  ['a long text', { host: 'h', text: 'x'.repeat(1_000_000) }],
  ['a long text of escaped characters', { host: 'h', text: '\u202e'.repeat(100_000) }],
  ['an error with a long message', { host: 'h', err: new Error('x'.repeat(1_000_000)) }],
  ['a long list', { host: 'h', list: many(10_000, () => hostile) }],
  ['many long texts', { host: 'h', deep: { texts: many(100, () => 'x'.repeat(10_000)) } }],
])('log: a line with %s is shortened, and says so', (_, details) => {
  const entry = entryOf(
    record((logger) => {
      logger.error(details, 'A step failed');
    }),
  );
  expect(entry).toMatchObject({
    host: 'h',
    msg: 'A step failed',
    level: 50,
    process: 'test',
    shortened: true,
  });
});

it('log: of a line with too many fields only those of Berth remain', () => {
  const details = Object.fromEntries(many(5_000, (index) => [`field${index}`, hostile]));
  const entry = entryOf(
    record((logger) => {
      logger.error(details, 'A step failed');
    }),
  );
  expect(Object.keys(entry).sort()).toEqual(['level', 'msg', 'process', 'shortened', 'time']);
});

it('log: a secret is not written, also if the line is shortened', () => {
  const written = record((logger) => {
    logger.info({ binding: { password: 'open sesame' }, text: 'x'.repeat(100_000) }, 'A binding was made');
  });
  expect(entryOf(written)['binding']).toEqual({ password: '[secret]' });
});

// Fails without the handler in src/main.ts: Node prints the error as it is.
it('log: an error that nothing has caught ends the process, and is printed escaped', async () => {
  const main = path.join(await compiled(), 'main.js');
  const throwOnce = `process.on('newListener', (event) => {
    if (event === 'uncaughtException') setImmediate(() => { throw new Error(${JSON.stringify(hostile)}); });
  });
  await import(${JSON.stringify(pathToFileURL(main).href)});`;
  const { code, stderr } = await new Promise<{ code: unknown; stderr: string }>((resolve) => {
    execFile(
      process.execPath,
      ['--input-type=module', '--eval', throwOnce],
      {
        env: { PATH: process.env['PATH'], BERTH_HYPERVISOR: 'simulated', BERTH_STATE_DIR: '/dev/null/none' },
      },
      (error, _, text) => {
        resolve({ code: error?.code, stderr: text });
      },
    );
  });
  expect(code).toBe(1);
  expect(stderr).toContain('a\\u001b[2J');
  for (const line of stderr.split('\n')) expect(line).not.toMatch(unprintable);
});
