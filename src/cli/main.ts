import { Command, CommanderError } from 'commander';
import { readSettings, SettingsError } from '../config/settings.ts';
import { HypervisorError } from '../core/hypervisor/hypervisor-error.ts';
import { CatalogError } from '../core/catalog/load.ts';
import { CryptoError } from '../lib/crypto-error.ts';
import { BackupError } from '../postgres/backup/backup-file.ts';
import { PostgresVersionError } from '../postgres/server/server-binaries.ts';
import { printError, printText } from '../lib/terminal.ts';
import { runAudit } from './audit.ts';
import { runBackup, runRestore } from './backup.ts';
import { runCaList, runCaRotate } from './cas.ts';
import { runContext } from './context-command.ts';
import { ContextError } from './credentials-input.ts';
import { runDoctor } from './doctor.ts';
import { runHostPower, runHostRelease, runHosts } from './hosts.ts';
import { runImageBuild, runImageList, runImagePrune } from './image.ts';
import { runKeysList, runKeysPrune, runKeysRotate } from './keys.ts';
import { MgmtError } from './mgmt-client.ts';
import { type ReconcileOptions, runReconcile } from './reconcile.ts';
import { runVerify } from './verify.ts';
import { runPlatformCreate, runPlatformList, runPlatformRetire, runPlatformRotate } from './platforms.ts';

/** Errors that an operator can fix: printed as one line. Any other error is a defect and printed with its stack. */
const expected = [
  ...[SettingsError, HypervisorError, CatalogError, ContextError, MgmtError, CryptoError],
  ...[BackupError, PostgresVersionError],
];

const program = new Command('berth')
  .description(
    "Manage hosts, images, platforms and credentials of a Berth installation. Run it on the broker's node, as its user and with its settings.",
  )
  .exitOverride()
  .configureOutput({ writeOut: printText, writeErr: printError });

program
  .command('hosts')
  .description('list hosts')
  .option('--wide', 'show all columns, with full names and ids')
  .option('--json', 'print the answer of the management API')
  .action((options: { json?: boolean; wide?: boolean }) => runHosts(readSettings(), options));

const host = program.command('host').description('pause, suspend, wake or release one host');
const hostArgument = 'id of the host, or its first characters';
for (const [name, power, does] of [
  ['pause', 'paused', "stop the host's CPUs, even if containers run; the next connection wakes it"],
  ['suspend', 'suspended', "write the host's memory to disk and free it; the next connection wakes it"],
  ['wake', 'running', 'wake a paused or suspended host'],
] as const) {
  host
    .command(name)
    .argument('<host>', hostArgument)
    .description(does)
    .action((id: string) => runHostPower(readSettings(), id, power));
}
host
  .command('release')
  .argument('<host>', hostArgument)
  .description('end the quarantine of a host after you have investigated it')
  .action((id: string) => runHostRelease(readSettings(), id));

program
  .command('verify')
  .argument('[host]', `${hostArgument}; default: every running host`)
  .description('check hosts for drift; exit code 1 if a host has drift or could not be checked')
  .action((id: string | undefined) => runVerify(readSettings(), id));

program
  .command('reconcile')
  .description('list the hosts that differ from their records in Postgres, or decide about one of them')
  .option('--dry-run', 'only list them (default); exit code 1 if there are any')
  .option('--adopt <host>', 'make it the host of the instance that its own record names again')
  .option('--remove <host>', 'destroy it with its data')
  .option('--yes', 'with --remove: without it, nothing is removed')
  .option('--json', 'print the answer of the management API')
  .action((options: ReconcileOptions) => runReconcile(readSettings(), options));

program
  .command('doctor')
  .description('check the requirements of this node and the health of the broker')
  .action(() => runDoctor(readSettings()));

program
  .command('backup')
  .argument('<file>', 'file to write; it must not exist')
  .description('back up the database, while the broker runs or not')
  .action((file: string) => runBackup(readSettings(), file));
program
  .command('restore')
  .argument('<file>', 'file that "berth backup" wrote')
  .description('replace the database of a stopped broker by a backup, or fill an empty one')
  .action((file: string) => runRestore(readSettings(), file));

const platform = program
  .command('platform')
  .description('manage the platforms that may call the broker, and their passwords');
const platformArgument = 'name of the platform';
platform
  .command('list')
  .description('list platforms')
  .action(() => runPlatformList(readSettings()));
platform
  .command('create')
  .argument('<name>', platformArgument)
  .description('create a platform, and print its username and password once')
  .action((name: string) => runPlatformCreate(readSettings(), name));
platform
  .command('rotate')
  .argument('<name>', platformArgument)
  .description('create a second password; the first stays valid until "retire"')
  .action((name: string) => runPlatformRotate(readSettings(), name));
platform
  .command('retire')
  .argument('<name>', platformArgument)
  .description('revoke the older of two passwords')
  .action((name: string) => runPlatformRetire(readSettings(), name));

program
  .command('audit')
  .description('list who changed which instances and bindings, from where and when; newest last')
  .option('--instance <id>', "only rows of this instance (the platform's id)")
  .option('--since <time>', 'only rows since a time (2026-11-23T12:00:00Z), or of the last 90m, 12h or 7d')
  .option('--limit <n>', 'at most this many rows, up to 1000', '100')
  .option('--json', 'print the answer of the management API, with all fields')
  .addHelpText('after', '\nExample:\n  berth audit --since 12h --limit 20')
  .action((options: { instance?: string; since?: string; limit: string; json?: boolean }) =>
    runAudit(readSettings(), options),
  );

const ca = program
  .command('ca')
  .description(
    "manage the certificate authorities: client signs bindings' certificates, server the gateways'",
  );
ca.command('list')
  .description('list CAs, with the number of live bindings that need each')
  .action(() => runCaList(readSettings()));
ca.command('rotate')
  .argument('<name>', 'client or server')
  .description('replace a CA by a new one; live bindings continue to work')
  .action((name: string) => runCaRotate(readSettings(), name));

const keys = program
  .command('keys')
  .description('manage the master keys that encrypt secrets in the database');
keys
  .command('list')
  .description('list master keys by id')
  .action(() => runKeysList(readSettings()));
keys
  .command('rotate')
  .description('create a new master key, and rewrap all secrets with it')
  .action(() => runKeysRotate(readSettings()));
keys
  .command('prune')
  .description('remove retired keys from the master key file')
  .action(() => runKeysPrune(readSettings()));

const image = program.command('image').description('manage the guest images that hosts boot');
image
  .command('build')
  .description("build an image from Debian's current packages, and print what it consists of")
  .action(() => runImageBuild(readSettings()));
image
  .command('list')
  .description(
    'list the images on this node: contents, security updates that each lacks, hosts and templates that use it',
  )
  .action(() => runImageList(readSettings()));
image
  .command('prune')
  .description('remove unused images, except the newest')
  .action(() => runImagePrune(readSettings()));

program
  .command('context')
  .description(
    "prepare a binding's credentials, read from standard input, for the docker CLI: ca.pem, cert.pem, key.pem, env",
  )
  .option('--directory <directory>', 'where to write the files', 'berth-context')
  .option('--import <name>', 'create a docker context of this name instead')
  .option('--instance <name>', 'which instance, binding or Secret to use, if the input has several')
  .option('--force', 'replace existing files or an existing context')
  .addHelpText(
    'after',
    `
Inputs (text around the JSON is skipped):
  cf service-key my-host my-key | berth context && . berth-context/env && docker version
  cf env my-app | berth context --instance my-host
  echo "$VCAP_SERVICES" | berth context
  kubectl get secret my-binding -o json | berth context`,
  )
  .action(runContext);

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // Commander has printed it already.
    process.exitCode = error.exitCode;
  } else {
    const isExpected = expected.some((kind) => error instanceof kind);
    const text =
      error instanceof Error ? (isExpected ? error.message : (error.stack ?? error.message)) : String(error);
    printError(`berth: ${text}`);
    process.exitCode = 1;
  }
}
