import eslint from '@eslint/js';
import { globalIgnores } from 'eslint/config';
import tseslint from 'typescript-eslint';

const environment = { object: 'process', property: 'env', message: 'Settings are read in src/config only.' };
const streams = ['stdout', 'stderr'].map((property) => ({
  object: 'process',
  property,
  message: 'Print with src/lib/terminal.ts, which escapes text from outside.',
}));
const terminalFiles = ['src/lib/terminal.ts', 'src/lib/progress.ts'];

/** @param properties must not be used in `files`, nor `console`, nor the module `process`, which has the same ones. */
const restrict = (files, ignores, properties) => ({
  files,
  ignores,
  rules: {
    'no-restricted-properties': ['error', ...properties],
    'no-restricted-imports': ['error', 'process', 'node:process'],
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
  restrict(['src/**/*.ts'], ['src/config/**', ...terminalFiles], [environment, ...streams]),
  restrict(terminalFiles, [], [environment]),
  restrict(['src/config/**/*.ts'], [], streams),
);
