/**
 * The environment of a child process: Berth's settings, and nothing else of this process's environment.
 * @param databaseUrlFile the database URL of the child's own database role; replaces the URL of the tables' owner.
 */
export function processEnvironment(databaseUrlFile: string): Record<string, string | undefined> {
  const own = Object.entries(process.env).filter(
    ([name]) => name.startsWith('BERTH_') && !name.endsWith('_DATABASE_URL_FILE'),
  );
  return { PATH: process.env['PATH'], ...Object.fromEntries(own), DATABASE_URL_FILE: databaseUrlFile };
}
