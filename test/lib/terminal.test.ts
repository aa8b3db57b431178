import { ESLint, Linter } from 'eslint';
import { expect, it } from 'vitest';

/** Problems that the project's lint rules for JavaScript's own objects find in a file. */
async function problemsOf(file: string, code: string): Promise<number> {
  const { rules = {} } = (await new ESLint().calculateConfigForFile(file)) as Linter.Config;
  const names = ['no-restricted-properties', 'no-restricted-imports', 'no-console'];
  const own = Object.fromEntries(names.map((name) => [name, rules[name] ?? 'off']));
  return new Linter().verify(code, [{ rules: own }]).length;
}

// Fails without the rules: a raw write is how text from a tenant reached operators' terminals unescaped.
it.each([
  'process.stdout.write(name);',
  'process.stderr.write(name);',
  'const { stdout } = process; stdout.write(name);',
  "import { stdout } from 'node:process'; stdout.write(name);",
  'console.log(name);',
])('terminal: only src/lib/terminal.ts may print; elsewhere lint refuses %s', async (code) => {
  for (const file of ['src/cli/hosts.ts', 'src/config/env.ts', 'src/processes/api.ts', 'src/main.ts']) {
    expect([file, await problemsOf(file, code)]).toEqual([file, 1]);
  }
});

it('terminal: lint lets src/lib/terminal.ts print, and nothing but src/config read the environment', async () => {
  expect(await problemsOf('src/lib/terminal.ts', 'process.stdout.write(name);')).toBe(0);
  for (const file of ['src/lib/terminal.ts', 'src/cli/hosts.ts']) {
    expect(await problemsOf(file, 'process.env.PATH;')).toBe(1);
  }
  expect(await problemsOf('src/config/env.ts', 'process.env.PATH;')).toBe(0);
});
