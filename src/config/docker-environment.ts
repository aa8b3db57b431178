/** The variables of this process's environment that the docker CLI needs. */
export function dockerEnvironment(): Record<string, string> {
  const names = ['PATH', 'HOME', 'DOCKER_CONFIG'];
  return Object.fromEntries(
    Object.entries(process.env).filter(
      (entry): entry is [string, string] => names.includes(entry[0]) && entry[1] !== undefined,
    ),
  );
}
