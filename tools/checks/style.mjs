// Finds phrases that docs/glossary.md and CONTRIBUTING.md rule out, in comments, messages, test names and documents:
//   node tools/checks/style.mjs [FILE...]
// Prints file:line, the phrase and what to write instead; exits with 1 if there is any. Code in backticks and SQL are
// not looked at. Single words are cspell's (flagWords in cspell.config.yaml).
import console from 'node:console';
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { extname, join } from 'node:path';
import process from 'node:process';
import ts from 'typescript';

const sentence = String.raw`(?<=^\W*|\n\W*\n\W*|[.:;!?|]\s+(?:\*\*)?|\*\* )`;

/** [pattern, what to write instead]; a blank stands for any white space, line breaks included. */
const phrases = [
  [
    String.raw`\bwhere (?:it|there|that|he|they|an?|the|is|no|this|these|those|none|one|nobody|somebody|nothing|both|each)\b|[,;:] where\b|\bWhere (?!to\b)[^.?:]*,`,
    'if, when, or "in which"',
  ],
  [
    `${sentence}(?:Who|What) (?:is|are|was|were|has|had|does|did|cannot|can't)\\b[^?.|]*? (?:is|are|was|were|has|must|may|can|will|does|stays|comes|gets)\\b`,
    'a noun: "the X that …"',
  ],
  [`(?<=, |; )(?:who|whoever|what) (?:is|has|was|had)\\b`, 'a noun: "the X that …"'],
  [`at the (?:most|least)`, 'at most, at least'],
  [`for ever\\b`, 'forever, or a number'],
  [`\\bso (?:long|many|often|few)\\b(?! that)`, 'while, if, or a measure'],
  [`\\bg(?:ive|ives|ave|iven|iving) (?:it |them |root )?up\\b`, 'abandon, release, drop, stop'],
  [`\\bt(?:ake|akes|ook|aken|aking) up\\b`, 'accept, start, lease, load'],
  [`\\bputs? (?:it |them )?down\\b`, 'release, store'],
  [`\\b(?:put|puts) (?:it |them |everything |all )?away\\b`, 'remove, clean up'],
  [`\\blet(?:s|ting)? (?:it |them |a host |hosts )?go\\b`, 'release, resume'],
  [`\\b(?:go|goes|went|gone|going) on\\b`, 'continue, run, happen'],
  [`\\bstands?(?! for\\b|-)(?: still)?\\b|\\bstood\\b`, 'is, is recorded, is stopped'],
  [`(?<![Tt]here |[Tt]here’s )\\bis no (?!longer\\b|more\\b)[a-z]+`, 'is not a, there is no'],
  [`\\bin words\\b`, 'as text'],
  [`\\bof (?:its|their|his) own\\b`, '"its own X", or nothing'],
  [`\\b(?:held|hold|holds) against\\b`, 'compare with, check against'],
  [`\\bon the books\\b|\\boff the books\\b`, 'recorded'],
  [`\\bat work\\b`, 'running, working'],
  [`\\b(?:tells? of|asks? after|tell of)\\b`, 'name, report, ask for'],
  [`\\bbr(?:ing|ings|ought) back\\b`, 'restart, restore'],
  [`\\bcomes? to nothing\\b`, 'fail'],
  [`(?<!\\b(?:virtual|state|Virtual|QEMU) |-)\\b[Mm]achines?\\b(?!-| id| code| firewall)`, 'VM, host, node'],
];
const checks = phrases.map(([source, instead]) => [
  new RegExp(source.replaceAll(' ', '\\s+'), 'gm'),
  instead,
]);

const documents = ['README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md', 'docs'];
const folders = [...documents, 'src', 'test', 'tools', 'migrations', 'setup', 'image', 'libexec'];
/** They quote the phrases. */
const skipped = ['docs/glossary.md', 'tools/checks/style.mjs', 'test/tools/style-check.test.ts'];
const blank = (text) => text.replace(/[^\n]/g, ' ');

function* filesIn(path) {
  if (skipped.includes(path)) return;
  if (!statSync(path).isDirectory()) yield path;
  else for (const name of readdirSync(path).sort()) yield* filesIn(join(path, name));
}

/** The comments and string literals of a TypeScript file; all else is blank, so that line numbers stay. */
function proseOfCode(text) {
  const parts = [];
  const file = ts.createSourceFile('x.ts', text, ts.ScriptTarget.Latest, true);
  const visit = (node) => {
    for (const range of ts.getLeadingCommentRanges(text, node.pos) ?? []) parts.push([range.pos, range.end]);
    for (const range of ts.getTrailingCommentRanges(text, node.end) ?? []) parts.push([range.pos, range.end]);
    const literal = ts.isStringLiteral(node) || ts.isTemplateLiteralToken(node);
    const isImport =
      ts.isImportDeclaration(node.parent ?? node) || ts.isExportDeclaration(node.parent ?? node);
    const words = literal && !isImport && / /.test(node.text);
    const sql = /\b(?:SELECT|INSERT|UPDATE|DELETE|WHERE|CREATE|ALTER|DROP|GRANT|FROM|JOIN|RETURNING)\b/;
    if (words && !sql.test(node.text)) parts.push([node.getStart() + 1, node.end - 1]);
    if (!ts.isJSDoc(node)) node.getChildren(file).forEach(visit);
  };
  visit(file);
  let prose = '';
  for (const [start, end] of parts.sort(([a], [b]) => a - b)) {
    if (start < prose.length) continue;
    const gap = text.slice(prose.length, start);
    // Two statements are two sentences; the lines of one `//` comment are one.
    const between = gap.trim() === '' ? blank(gap) : blank(gap).replace(/ $/, '|');
    prose +=
      between + text.slice(start, end).replace(/^\s*(?:\/\*\*?|\*\/?|\/\/)|\*\/$|\{@link|`[^`\n]*`/gm, blank);
  }
  return prose;
}

function prose(path, text) {
  const type = extname(path);
  if (/^\.[mc]?[jt]s$/.test(type)) return proseOfCode(text);
  if (type === '.md')
    return text.replace(/^```[^]*?^```|^ {4,}.*$|`[^`]*`|\]\([^)]*\)|<!--[^]*?-->/gm, blank);
  if (/^\.(?:svg|json|sha256)$/.test(type)) return '';
  // Shell and Perl: comments, and what is said in double quotes.
  return text.replace(/(?<=^|\s)#.*$|"[^"\n]*"|[^]/gm, (part) => (part.length > 1 ? part : blank(part)));
}

let found = 0;
const named = process.argv.slice(2);
for (const path of (named.length > 0 ? named : folders).flatMap((root) => [...filesIn(root)])) {
  const text = prose(path, readFileSync(path, 'utf8'));
  for (const [pattern, instead] of checks) {
    for (const { 0: phrase, index } of text.matchAll(pattern)) {
      const line = text.slice(0, index).split('\n').length;
      console.log(`${path}:${line}: "${phrase.trim().replace(/\s+/g, ' ').slice(0, 60)}": write ${instead}`);
      found++;
    }
  }
}
if (found > 0) {
  console.log(`${found} phrases to reword (CONTRIBUTING.md, "Language")`);
  process.exitCode = 1;
}
