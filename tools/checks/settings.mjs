// Checks that docs/settings.md and example.env list every setting of src/config/setting-table.ts with its default, and no
// other; with `--write` it writes both. Run by `npm run check:settings`, in the repository's root.
import console from 'node:console';
import { readFileSync, writeFileSync } from 'node:fs';
import process from 'node:process';
import prettier from 'prettier';
import { runnerImport } from 'vite';

const { module } = await runnerImport(`${process.cwd()}/src/config/setting-table.ts`);
const settings = Object.values(module.settingTable);

const defaultOf = (setting) =>
  typeof setting.default === 'string' ? `\`${setting.default}\`` : setting.default.computed;
const cell = (text) => text.replaceAll('|', '\\|');
const table = [
  '| name | default | meaning |',
  '| --- | --- | --- |',
  ...settings.map(
    (setting) => `| \`${setting.name}\` | ${cell(defaultOf(setting))} | ${cell(setting.description)} |`,
  ),
].join('\n');

const example = [
  '# Settings of Berth with their defaults; docs/settings.md explains them. Written by tools/checks/settings.mjs.',
  ...settings.flatMap((setting) => [
    '',
    `# ${setting.description}`,
    ...(typeof setting.default === 'string'
      ? [`# ${setting.name}=${setting.default}`]
      : [`# default: ${setting.default.computed}`, `# ${setting.name}=`]),
  ]),
  '',
].join('\n');

const document = readFileSync('docs/settings.md', 'utf8');
const format = async (text) =>
  prettier.format(text, { ...(await prettier.resolveConfig('docs/settings.md')), parser: 'markdown' });
// The table is the first one of the document.
const expectedDocument = await format(document.replace(/^\| name[^]*?\n(?=\n)/m, () => `${table}\n`));

let failed = false;
for (const [file, expected] of [
  ['docs/settings.md', expectedDocument],
  ['example.env', example],
]) {
  let actual = '';
  try {
    actual = readFileSync(file, 'utf8');
  } catch {
    // Missing: reported as a difference.
  }
  if (actual === expected) continue;
  if (process.argv.includes('--write')) {
    writeFileSync(file, expected);
    continue;
  }
  console.error(
    `${file} does not match src/config/setting-table.ts: run "npm run check:settings -- --write"`,
  );
  failed = true;
}
process.exit(failed ? 1 : 0);
