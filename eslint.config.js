import eslint from '@eslint/js';
import { globalIgnores } from 'eslint/config';
import tseslint from 'typescript-eslint';

const environment = { object: 'process', property: 'env', message: 'Settings are read in src/config only.' };
const streams = ['stdout', 'stderr'].map((property) => ({
  object: 'process',
  property,
  message: 'Print with src/lib/terminal.ts, which escapes text from outside.',
}));
const durableMessage =
  'A power cut loses or empties the file: use src/lib/write-file-atomically.ts (or write-kernel-file.ts for /proc and /sys).';
const fileFunctions = [
  {
    name: 'node:fs/promises',
    importNames: ['writeFile', 'appendFile', 'rename', 'link'],
    message: durableMessage,
  },
  {
    name: 'node:fs',
    importNames: ['writeFileSync', 'appendFileSync', 'renameSync', 'promises'],
    message: durableMessage,
  },
];
/** They implement, or do not need, what the others must import. */
const fileWriters = [
  'src/lib/write-file-atomically.ts',
  'src/lib/create-once.ts',
  'src/lib/write-kernel-file.ts',
];
const terminalFiles = ['src/lib/terminal.ts', 'src/lib/progress.ts'];

/**
 * @param properties must not be used in `files`, nor `console`, nor the module `process`, which has the same ones.
 * @param imports must not be used either.
 */
const restrict = (files, ignores, properties, imports = fileFunctions) => ({
  files,
  ignores,
  rules: {
    'no-restricted-properties': ['error', ...properties],
    'no-restricted-imports': ['error', { paths: ['process', 'node:process', ...imports] }],
    'no-console': 'error',
  },
});

export default tseslint.config(
  globalIgnores(['dist/', 'dist-tools/', 'coverage/']),
  eslint.configs.recommended,
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true },
      ],
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
      '@typescript-eslint/consistent-type-imports': 'error',
      eqeqeq: 'error',
      // A longer file usually has a second subject. An exception states its reason: eslint-disable max-lines -- REASON.
      'max-lines': ['error', { max: 300 }],
    },
  },
  // Settings are read once, checked and handed on.
  restrict(['src/**/*.ts'], ['src/config/**', ...terminalFiles, ...fileWriters], [environment, ...streams]),
  restrict(fileWriters, [], [environment, ...streams], []),
  restrict(terminalFiles, [], [environment]),
  restrict(['src/config/**/*.ts'], [], streams),
);
