import { dockerEnvironment } from '../config/docker-environment.ts';
import { printError, printLine } from '../lib/terminal.ts';
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
    printLine('Files written. Next:');
    printLine(`  . ${options.directory}/env`);
    printLine('  docker version');
  } else {
    await importDockerContext(credentials, options.import, { force, environment: dockerEnvironment() });
    printLine('Context created. Next:');
    printLine(`  docker --context ${options.import} version`);
  }
  for (const warning of warnings) if (warning !== undefined) printError(`berth: ${warning}`);
}
