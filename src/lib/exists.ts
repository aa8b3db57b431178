import { access } from 'node:fs/promises';

/** Whether a file exists and this process may see it. */
export function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}
