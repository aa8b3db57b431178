import { dockerEnvironment } from '../config/docker-environment.ts';
import {
  ContextError,
  expiryWarning,
  importDockerContext,
  parseCredentials,
  readInput,
  writeDirectory,
} from './context.ts';

/** `berth context`: prepares a binding's credentials, from standard input, for the docker CLI. */
export async function runContext(options: {
  directory: string;
  import?: string;
  force?: boolean;
}): Promise<void> {
  if (process.stdin.isTTY) {
    throw new ContextError(
      'No credentials on standard input. Use: berth context < service-key.json, or cf service-key HOST KEY | berth context',
    );
  }
  const credentials = parseCredentials(await readInput(process.stdin));
  const warnings = [expiryWarning(credentials, new Date())];
  const force = options.force === true;
  if (options.import === undefined) {
    warnings.push(...(await writeDirectory(credentials, options.directory, { force })));
    process.stdout.write(`Files written. Next:\n  . ${options.directory}/env\n  docker version\n`);
  } else {
    await importDockerContext(credentials, options.import, { force, environment: dockerEnvironment() });
    process.stdout.write(`Context created. Next:\n  docker --context ${options.import} version\n`);
  }
  for (const warning of warnings) if (warning !== undefined) process.stderr.write(`berth: ${warning}\n`);
}
