import eslint from '@eslint/js';
import { importX } from 'eslint-plugin-import-x';
import { createTypeScriptImportResolver } from 'eslint-import-resolver-typescript';
import { globalIgnores } from 'eslint/config';
import tseslint from 'typescript-eslint';

/**
 * Which rooms of src/ a room may import from. Arrows point toward `core`; what is not listed is refused.
 * `core` stands alone; only the composition root and the entry points know every room.
 */
const mayImport = {
  core: [],
  files: [],
  config: ['core', 'files'],
  pki: ['core'],
  store: ['core', 'pki'],
  guest: ['core'],
  operations: ['core'],
  hypervisors: ['core', 'files', 'guest'],
  gateway: ['core', 'pki'],
  http: ['core'],
  setup: ['core', 'config', 'hypervisors'],
  cli: ['core', 'config', 'pki', 'hypervisors', 'setup'],
  demo: ['core', 'config', 'cli'],
  bench: ['core', 'config', 'pki', 'store', 'roles', 'hypervisors', 'demo', 'setup'],
};
const rooms = Object.keys(mayImport);

const boundaries = rooms.map((room) => ({
  files: [`src/${room}/**`],
  rules: {
    'import-x/no-restricted-paths': [
      'error',
      {
        zones: [
          {
            target: `./src/${room}`,
            from: './src',
            except: [room, ...mayImport[room]].map((name) => `./${name}`),
            message: `src/${room} may import only from: ${[room, ...mayImport[room]].join(', ')} (eslint.config.js).`,
          },
        ],
      },
    ],
  },
}));

export default tseslint.config(
  globalIgnores(['dist/', 'coverage/']),
  eslint.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    plugins: { 'import-x': importX },
    settings: { 'import-x/resolver-next': [createTypeScriptImportResolver()] },
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
      'import-x/no-cycle': 'error',
      eqeqeq: 'error',
    },
  },
  ...boundaries,
  {
    // Settings are read once, checked, and handed on: no process.env past config (design: style).
    files: ['src/**/*.ts'],
    ignores: ['src/config/**'],
    rules: {
      'no-restricted-properties': [
        'error',
        { object: 'process', property: 'env', message: 'Settings are read in src/config only.' },
      ],
    },
  },
);
