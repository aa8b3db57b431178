import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';

const project = path.join(import.meta.dirname, '..', '..');
const compile = () => promisify(execFile)('bash', [path.join(project, 'setup', 'run'), 'build']);

/** Compiles if a source is newer; returns the folder of the compiled `src`, for tests that start Berth's processes. */
export async function compiled(): Promise<string> {
  await compile();
  return path.join(project, 'dist', 'src');
}

/** The same for the compiled `tools`. */
export async function compiledTools(): Promise<string> {
  await compile();
  return path.join(project, 'dist-tools', 'tools');
}
