import type * as FileSystem from 'node:fs/promises';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ESLint } from 'eslint';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { createOnce } from '../../src/lib/create-once.ts';
import { publishFile, publishFolder, writeFileAtomically } from '../../src/lib/write-file-atomically.ts';
import { projectDirectory } from '../../src/lib/project-directory.ts';

/** What the code under test did to files, in order: `sync PATH`, `name PATH` (it got this name). */
const acts = vi.hoisted((): string[] => []);

vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof FileSystem>();
  return {
    ...real,
    async open(...args: Parameters<typeof real.open>) {
      const handle = await real.open(...args);
      const sync = handle.sync.bind(handle);
      handle.sync = () => {
        acts.push(`sync ${String(args[0])}`);
        return sync();
      };
      return handle;
    },
    async rename(from: string, to: string) {
      acts.push(`name ${to}`);
      return real.rename(from, to);
    },
    async link(from: string, to: string) {
      acts.push(`name ${to}`);
      return real.link(from, to);
    },
  };
});

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'berth-power-'));
  acts.length = 0;
});
afterEach(() => rm(folder, { recursive: true }));

const at = (...names: string[]) => path.join(folder, ...names);
/** Without the random part of temporary names. */
const done = () => acts.map((act) => act.replace(/\.[0-9a-f-]{36}(\.new)?$/, '.new'));

// Each fails without one of the flushes: a power cut left an empty file, or none although its writer had been told that it is there.
it('power cut: writeFileAtomically flushes the content before the file gets its name, and the name after', async () => {
  await writeFileAtomically(at('file'), 'content');
  expect(done()).toEqual([`sync ${at('file')}.new`, `name ${at('file')}`, `sync ${folder}`]);
});

it('power cut: createOnce flushes the content before the file gets its name, and the name after', async () => {
  await createOnce(at('secret'), () => 'content');
  expect(done()).toEqual([`sync ${at('secret')}.new`, `name ${at('secret')}`, `sync ${folder}`]);
});

it('power cut: publishFile flushes the content before the file gets its name, and the name after', async () => {
  await writeFile(at('attempt'), 'content');
  await publishFile(at('attempt'), at('file'));
  expect(done()).toEqual([`sync ${at('attempt')}`, `name ${at('file')}`, `sync ${folder}`]);
  expect(await readFile(at('file'), 'utf8')).toBe('content');
});

it('power cut: publishFolder flushes all that is in the folder before it gets its name', async () => {
  await mkdir(at('attempt', 'inner'), { recursive: true });
  await writeFile(at('attempt', 'inner', 'one'), '1');
  await writeFile(at('attempt', 'two'), '2');
  await publishFolder(at('attempt'), at('folder'));
  const [named, after] = done().slice(-2);
  expect([named, after]).toEqual([`name ${at('folder')}`, `sync ${folder}`]);
  const paths = ['', 'inner', 'inner/one', 'two'].map((name) => `sync ${path.join(at('attempt'), name)}`);
  expect(done().slice(0, -2).sort()).toEqual(paths);
});

it(
  'power cut: sources that write files themselves are refused by the linter',
  { timeout: 60_000 },
  async () => {
    const eslint = new ESLint({
      cwd: projectDirectory(),
      ruleFilter: ({ ruleId }) => ruleId === 'no-restricted-imports',
    });
    const rulesOf = async (file: string) => {
      const config = (await eslint.calculateConfigForFile(file)) as { rules: Record<string, unknown> };
      return JSON.stringify(config.rules['no-restricted-imports']);
    };
    for (const file of [
      'src/hypervisors/qemu/host-record.ts',
      'src/config/secrets.ts',
      'src/lib/terminal.ts',
    ]) {
      expect(await rulesOf(file), file).toContain('"writeFile","appendFile","rename","link"');
    }
    expect(await rulesOf('src/lib/write-file-atomically.ts')).not.toContain('"writeFile"');
  },
);
