import { existsSync } from 'node:fs';
import path from 'node:path';

/** The project's folder, with `image/` and `libexec/`; works for the sources and for compiled code. */
export function projectDirectory(): string {
  let directory = import.meta.dirname;
  while (!existsSync(path.join(directory, 'package.json'))) {
    const parent = path.dirname(directory);
    if (parent === directory) throw new Error('the project has no package.json');
    directory = parent;
  }
  return directory;
}
