import { Command, CommanderError } from 'commander';
import { readSettings, SettingsError } from '../config/settings.ts';
import { HypervisorError } from '../core/hypervisor/hypervisor-error.ts';
import { CatalogError } from '../core/catalog/load.ts';
import { CryptoError } from '../lib/crypto-error.ts';
import { runAudit } from './audit.ts';
import { runAuthorityList, runAuthorityRotate } from './authorities.ts';
import { ContextError } from './context.ts';
import { runContext } from './context-command.ts';
import { runDoctor } from './doctor.ts';
import { runHostPower, runHostRelease, runHosts } from './hosts.ts';
import { runImageBuild, runImageList, runImagePrune } from './image.ts';
import { runKeysList, runKeysPrune, runKeysRotate } from './keys.ts';
import { MgmtError } from './mgmt-client.ts';
import { runVerify } from './verify.ts';
import { runPlatformCreate, runPlatformList, runPlatformRetire, runPlatformRotate } from './platforms.ts';

/** What people can mend is said in a line; everything else is a defect, and comes with its stack. */
const expected = [SettingsError, HypervisorError, CatalogError, ContextError, MgmtError, CryptoError];

const program = new Command('berth')
  .description('Looks after a Berth: hosts, guest image, credentials. Settings are those of the broker.')
  .exitOverride();

program
  .command('hosts')
  .description('list the hosts of the broker that runs on this machine')
  .option('--json', 'as JSON')
  .action((options: { json?: boolean }) => runHosts(readSettings(), options));

const host = program
  .command('host')
  .description('what can be done with one host; HOST may be the beginning of its id');
for (const [name, power, does] of [
  ['pause', 'paused', 'stop its processors, whatever runs on it; the next connection wakes it'],
  ['suspend', 'suspended', 'write its memory to disk and free it; the next connection wakes it'],
  ['wake', 'running', 'let it go on'],
] as const) {
  host
    .command(`${name} <host>`)
    .description(does)
    .action((id: string) => runHostPower(readSettings(), id, power));
}
host
  .command('release <host>')
  .description('end its quarantine, once you have looked into it')
  .action((id: string) => runHostRelease(readSettings(), id));

program
  .command('verify [host]')
  .description(
    'check now whether hosts are as they were made: all that run, or the one whose id begins so; exit code 1 where one is not',
  )
  .action((host: string | undefined) => runVerify(readSettings(), host));

program
  .command('doctor')
  .description('check what this machine has and lacks, and how the broker is')
  .action(() => runDoctor(readSettings()));

const platform = program
  .command('platform')
  .description('the platforms that may call the broker: each is a world of its own');
platform
  .command('list')
  .description('list them')
  .action(() => runPlatformList(readSettings()));
platform
  .command('create <name>')
  .description('record one, and print its username and password, once')
  .action((name: string) => runPlatformCreate(readSettings(), name));
platform
  .command('rotate <name>')
  .description('make a second password; the first stays valid until it is retired')
  .action((name: string) => runPlatformRotate(readSettings(), name));
platform
  .command('retire <name>')
  .description('refuse the older of two passwords from now on')
  .action((name: string) => runPlatformRetire(readSettings(), name));

program
  .command('audit')
  .description('list what was done to instances and bindings, by whom and from where, the newest last')
  .option('--instance <id>', "only what concerns the instance with this id (the platform's)")
  .option('--since <time>', 'only since a time (2026-11-23T12:00:00Z), or for so long: 90m, 12h, 7d')
  .option('--limit <n>', 'at most so many rows, up to 1000', '100')
  .option('--json', 'as JSON, with all that is known of each')
  .action((options: { instance?: string; since?: string; limit: string; json?: boolean }) =>
    runAudit(readSettings(), options),
  );

const authority = program
  .command('authority')
  .description("the certificate authorities: client signs bindings' certificates, server the gateways' own");
authority
  .command('list')
  .description('list them, with the live bindings that need each')
  .action(() => runAuthorityList(readSettings()));
authority
  .command('rotate')
  .argument('<name>', 'client or server')
  .description('put a new one in its place; live bindings go on working')
  .action((name: string) => runAuthorityRotate(readSettings(), name));

const keys = program
  .command('keys')
  .description('the master keys that secrets in the database are sealed with');
keys
  .command('list')
  .description('list them by their ids')
  .action(() => runKeysList(readSettings()));
keys
  .command('rotate')
  .description('make a new master key, and seal with it; what the former one has sealed is wrapped anew')
  .action(() => runKeysRotate(readSettings()));
keys
  .command('prune')
  .description('take the keys that nothing is sealed with any more out of the master key file')
  .action(() => runKeysPrune(readSettings()));

const image = program.command('image').description('the guest image that every host boots');
image
  .command('build')
  .description('build it with the packages as Debian has them now; says size and digest')
  .action(() => runImageBuild(readSettings()));
image
  .command('list')
  .description('list the images on this machine, and how many hosts and templates need each')
  .action(() => runImageList(readSettings()));
image
  .command('prune')
  .description('remove the images that no host and no template needs, but for the newest')
  .action(() => runImagePrune(readSettings()));

program
  .command('context')
  .description(
    "write a binding's credentials (standard input) for the docker CLI: ca.pem, cert.pem, key.pem, env",
  )
  .option('--directory <directory>', 'where to write them', 'berth-context')
  .option('--import <name>', 'make a docker context of this name instead')
  .option('--force', 'replace what is there')
  .addHelpText(
    'after',
    '\nExample:\n  cf service-key my-host my-key | berth context && . berth-context/env && docker version',
  )
  .action(runContext);

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // Commander has said it already.
    process.exitCode = error.exitCode;
  } else {
    const isExpected = expected.some((kind) => error instanceof kind);
    const text =
      error instanceof Error ? (isExpected ? error.message : (error.stack ?? error.message)) : String(error);
    process.stderr.write(`berth: ${text}\n`);
    process.exitCode = 1;
  }
}
