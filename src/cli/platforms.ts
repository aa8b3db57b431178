import type { Settings } from '../config/settings.ts';
import type { PlatformCredential, PlatformOverview } from '../core/ports/platforms.ts';
import { printError, printJson } from '../lib/terminal.ts';
import { askMgmt } from './mgmt-client.ts';
import { type Column, printTable } from './table.ts';

/** As JSON carries it. */
type PlatformLine = Omit<PlatformOverview, 'createdAt'> & { readonly createdAt: string };

const columns: readonly Column<PlatformLine>[] = [
  ['PLATFORM', ({ name }) => name],
  ['PASSWORDS', ({ passwords }) => String(passwords)],
  ['INSTANCES', ({ instances }) => String(instances)],
  ['CREATED', ({ createdAt }) => createdAt.slice(0, 19)],
];

const route = (name: string) => `/mgmt/platforms/${encodeURIComponent(name)}`;

/** `berth platform list`: every platform, a line each. */
export async function runPlatformList(settings: Settings): Promise<void> {
  const { platforms } = await askMgmt<{ platforms: PlatformLine[] }>(settings, '/mgmt/platforms');
  printTable(columns, platforms);
}

/** `berth platform create NAME`: prints its credentials to standard output; they can't be shown again. */
export async function runPlatformCreate(settings: Settings, name: string): Promise<void> {
  printCredential(await askMgmt<PlatformCredential>(settings, route(name), 'PUT'));
}

/** `berth platform rotate NAME`: creates a second password; the first stays valid until `retire`. */
export async function runPlatformRotate(settings: Settings, name: string): Promise<void> {
  printCredential(await askMgmt<PlatformCredential>(settings, `${route(name)}/passwords`, 'POST'));
  printError(
    `Both passwords are valid. Give the new one to the platform (cf update-service-broker), then run: berth platform retire ${name}`,
  );
}

/** `berth platform retire NAME`: revokes the older of two passwords. */
export async function runPlatformRetire(settings: Settings, name: string): Promise<void> {
  await askMgmt(settings, `${route(name)}/passwords/oldest`, 'DELETE');
  printError(`The older password of ${name} is revoked.`);
}

function printCredential(credential: PlatformCredential): void {
  printJson(credential);
  printError('Save the password now: Berth stores only its digest and cannot show it again.');
}
