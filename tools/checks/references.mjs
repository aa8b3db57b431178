// Fails if a comment, a test name or a document refers to something that is not in the repository: a rule of
// docs/osb.md, a file, an ADR. Run by `npm run check:references`, in the repository's root.
import { execFileSync } from 'node:child_process';
import console from 'node:console';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import process from 'node:process';

const tracked = execFileSync('git', ['ls-files', '-co', '--exclude-standard'], { encoding: 'utf8' })
  .split('\n')
  .filter((file) => file !== '' && existsSync(file));
const files = new Set(tracked);
const folders = new Set(
  tracked.flatMap((file) => file.split('/').map((_, i, all) => all.slice(0, i).join('/'))),
);
const exists = (path) => files.has(path) || folders.has(path.replace(/\/$/, ''));
/** A file may be named by the end of its path; a test's path may lack the extension. */
const isSuffix = (path) => tracked.some((file) => `/${file}`.endsWith(`/${path}`));
const isPrefix = (path) => tracked.some((file) => file.startsWith(`${path}.`));
const adrs = new Set(
  tracked
    .map((file) => /^docs\/adr\/(\d{4})-/.exec(file)?.[1])
    .filter(Boolean)
    .map(Number),
);

const rules = new Set();
for (const [, heading, item] of readFileSync('docs/osb.md', 'utf8').matchAll(
  /^### (\d+)\.|^- \*\*(\d+[a-z])\*\*/gm,
)) {
  rules.add(heading ?? item);
}

const roots =
  /(?<![\w./:-])(?<!QEMU's )(?:docs|src|test|tools|migrations|libexec|setup)\/(?![\w./-]*(?:[*{}]|NAME|SUITE))[\w./-]*\w/g;
const problems = [];
/** Released history may name files of its time. */
const checked = tracked.filter(
  (file) =>
    /\.(ts|mjs|js|md|pl|sh|sql|yaml)$/.test(file) &&
    file !== 'CHANGELOG.md' &&
    !file.endsWith('checks/references.mjs'),
);
for (const file of checked) {
  const source = readFileSync(file, 'utf8');
  const isDoc = file.endsWith('.md');
  const report = (index, problem) =>
    problems.push(`${file}:${source.slice(0, index).split('\n').length}: ${problem}`);

  for (const { index, 0: found } of source.matchAll(/\bosb-notes\b|\bdesign: /g)) {
    report(index, `"${found.trim()}" refers to a document outside the repository`);
  }
  // `docs/osb.md 15`, `docs/osb.md 15, 38` and `docs/osb.md 8 to 12`.
  for (const { index, 1: list } of source.matchAll(
    /docs\/osb\.md (\d+[a-z]?(?:(?:, | and | to )\d+[a-z]?)*)/g,
  )) {
    for (const rule of list.match(/\d+[a-z]?/g))
      if (!rules.has(rule)) report(index, `docs/osb.md has no rule ${rule}`);
  }
  // Names of tests: `15c: …`, as a separate string or as the first cell of a table.
  if (/\.test\.ts$/.test(file)) {
    for (const { index, 1: list } of source.matchAll(/(?<=['"`])(\d+[a-z]?(?:, \d+[a-z]?)*): /g)) {
      for (const rule of list.split(', '))
        if (!rules.has(rule)) report(index, `docs/osb.md has no rule ${rule}`);
    }
  }

  const comments = isDoc ? [{ index: 0, 0: source }] : source.matchAll(/(?<!:)\/\/.*|\/\*[^]*?\*\//g);
  for (const { index, 0: comment } of comments) {
    for (const { index: at, 0: path } of comment.matchAll(roots)) {
      if (!exists(path) && !isPrefix(path)) report(index + at, `${path} does not exist`);
    }
    for (const { index: at, 0: path } of comment.matchAll(
      /(?<![\w./*{}:@-])\w[\w/.-]*\.(?:ts|mjs)\b(?!\()/g,
    )) {
      if (!/^(docs|src|test|tools)\//.test(path) && !/[A-Z]{3,}/.test(path) && !isSuffix(path))
        report(index + at, `${path} does not exist`);
    }
    for (const { index: at, 1: number } of comment.matchAll(/\bADR (\d+)/g)) {
      if (!adrs.has(Number(number))) report(index + at, `ADR ${number} does not exist`);
    }
    if (!isDoc) continue;
    for (const { index: at, 1: link } of comment.matchAll(/\]\((?![a-z]+:|#)([^)#\s]+)(?:#[^)]*)?\)/g)) {
      if (!exists(normalize(join(dirname(file), link)))) report(at, `${link} does not exist`);
    }
  }
}
for (const problem of problems) console.error(problem);
if (problems.length > 0) process.exitCode = 1;
