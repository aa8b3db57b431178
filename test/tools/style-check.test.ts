import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';

const folder = mkdtempSync(join(tmpdir(), 'berth-style-'));
afterAll(() => {
  rmSync(folder, { recursive: true });
});

/** Line and phrase of each finding in a file with this name and text. */
function check(name: string, text: string): string[] {
  const path = join(folder, name);
  writeFileSync(path, text);
  const { stdout } = spawnSync(process.execPath, ['tools/checks/style.mjs', path], { encoding: 'utf8' });
  return [...stdout.matchAll(/:(\d+): "([^"]*)":/g)].map(
    ([, line, phrase]) => `${String(line)} ${String(phrase)}`,
  );
}

it('style check: names line and phrase of comments, messages and test names', () => {
  const text = [
    '/** The host is restarted where it has ended.',
    ' *  Its operation is given',
    ' *  up. */',
    "throw new Error('the lease goes on');",
    "it('is no error', () => undefined);",
    '// It lives so',
    '// long.',
  ];
  expect(check('a.ts', text.join('\n')).sort()).toEqual([
    '1 where it',
    '2 given up',
    '4 goes on',
    '5 is no error',
    '6 so long',
  ]);
});

it('style check: accepts identifiers, code in backticks, SQL and ordinary English', () => {
  const text = [
    "import { where } from './machine.ts';",
    'const machine = where.it; // there is no template; `machine` is a column',
    "const sql = 'SELECT 1 WHERE it IS NULL AND stands';",
    '/** A virtual machine reads its machine-id as long as it runs: it is no longer a copy. */',
    '/** Where to look: what is a host? */',
  ];
  expect(check('b.ts', text.join('\n'))).toEqual([]);
});

it('style check: reads the text of Markdown and the comments and messages of shell scripts', () => {
  expect(
    check('c.md', 'What is lost is lost.\n\n    machine\n\n```\nmachine\n```\n\nA `machine`, a machine.\n'),
  ).toEqual(['1 What is lost is', '9 machine']);
  expect(check('d', 'machine=1 # goes on\nsay "made of its own"\n')).toEqual(['1 goes on', '2 of its own']);
});
