/**
 * Which folders a folder may import from. Arrows point toward `core`; an import that is not listed is refused, and
 * so is a folder that is not in the table. Only `src/processes`, which wires everything together, and the entry
 * point may know every folder of `src`.
 */
const mayImport = {
  'src/lib': [],
  'src/core': ['src/lib'],
  'src/config': ['src/core', 'src/lib'],
  'src/secrets': ['src/core', 'src/lib', 'src/config'],
  'src/certificates': ['src/core', 'src/lib'],
  'src/postgres': ['src/core', 'src/lib', 'src/config', 'src/secrets', 'migrations'],
  'src/history': ['src/core', 'src/lib'],
  'src/operations': ['src/core', 'src/lib'],
  'src/controllers': ['src/core', 'src/lib', 'src/operations'],
  'src/guest': ['src/core', 'src/lib'],
  'src/hypervisors': ['src/core', 'src/lib', 'src/guest', 'src/config'],
  'src/gateway': ['src/core', 'src/lib', 'src/certificates'],
  'src/http': ['src/core', 'src/lib'],
  'src/cli': ['src/core', 'src/lib', 'src/config', 'src/secrets', 'src/hypervisors', 'src/postgres'],
  'src/processes': ['src'],
  'src/main.ts': ['src'],
  migrations: [],
  tools: ['src', 'migrations'],
};

const anyOf = (folders) => `^(${folders.map((folder) => folder.replaceAll('.', '\\.')).join('|')})(/|$)`;

/** @type {import('dependency-cruiser').IConfiguration} */
export default {
  forbidden: [
    {
      name: 'no-circles',
      comment: 'Two files that import each other, types included, are one thought or three files.',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'every-folder-is-in-the-table',
      comment: 'Add the folder to mayImport in .dependency-cruiser.js.',
      severity: 'error',
      from: {},
      to: { path: '^(src|migrations|tools)/', pathNot: anyOf(Object.keys(mayImport)) },
    },
    ...Object.entries(mayImport).map(([folder, allowed]) => ({
      name: `imports-of-${folder}`,
      comment: `${folder} may import from ${[folder, ...allowed].join(', ')} only (mayImport in .dependency-cruiser.js).`,
      severity: 'error',
      from: { path: anyOf([folder]) },
      to: { path: '^(src|migrations|tools|test)/', pathNot: anyOf([folder, ...allowed]) },
    })),
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: { extensions: ['.ts', '.js'] },
  },
};
