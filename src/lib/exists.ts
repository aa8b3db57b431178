import { access } from 'node:fs/promises';

/** Whether something of this name is there, and this process may know of it. */
export function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}
