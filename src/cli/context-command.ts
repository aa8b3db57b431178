import { dockerEnvironment } from '../config/docker-environment.ts';
import { printError, printLine } from '../lib/terminal.ts';
import { expiryWarning, importDockerContext, parseCredentials, writeDirectory } from './context.ts';
import { ContextError, readInput } from './credentials-input.ts';

/** `berth context`: prepares a binding's credentials, from standard input, for the docker CLI. */
export async function runContext(options: {
  directory: string;
  import?: string;
  instance?: string;
  force?: boolean;
}): Promise<void> {
  if (process.stdin.isTTY) {
    throw new ContextError(
      'No credentials on standard input. Use: berth context < service-key.json, or cf service-key HOST KEY | berth context; berth context --help lists the other inputs',
    );
  }
  const credentials = parseCredentials(await readInput(process.stdin), options.instance);
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
