import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';

const project = path.join(import.meta.dirname, '..', '..');

/**
 * The compiled program's folder, for tests that need it in processes of its own: Node can't run the sources.
 * It is compiled anew where a source is newer.
 */
export async function compiled(): Promise<string> {
  await promisify(execFile)('bash', [path.join(project, 'setup', 'run'), 'build']);
  return path.join(project, 'dist', 'src');
}
