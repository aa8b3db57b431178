import type { Settings } from '../config/settings.ts';
import type { CertificateAuthorityOverview } from '../core/ports/certificate-authorities.ts';
import { askMgmt, MgmtError } from './mgmt-client.ts';
import { type Column, printTable } from './table.ts';

/** As JSON carries it. */
type CaLine = Omit<CertificateAuthorityOverview, 'since' | 'expiresAt'> &
  Record<'since' | 'expiresAt', string>;
interface Answer {
  readonly certificateAuthorities: readonly CaLine[];
}

const columns: readonly Column<CaLine>[] = [
  ['NAME', ({ name }) => name],
  ['CA', ({ id }) => id.slice(0, 8)],
  ['STATE', ({ state }) => state],
  ['SINCE', ({ since }) => since.slice(0, 19)],
  ['EXPIRES', ({ expiresAt }) => expiresAt.slice(0, 10)],
  ['BINDINGS', ({ liveBindings }) => String(liveBindings)],
];
/** Longer than the 25 s that the broker waits for gateways to trust a new CA. */
const rotateTimeoutMs = 60_000;
const route = '/mgmt/certificate-authorities';

/** `berth ca list` */
export async function runCaList(settings: Settings): Promise<void> {
  printTable(columns, (await askMgmt<Answer>(settings, route)).certificateAuthorities);
}

/** `berth ca rotate client|server` */
export async function runCaRotate(settings: Settings, name: string): Promise<void> {
  if (name !== 'client' && name !== 'server') {
    throw new MgmtError(`There is no CA ${JSON.stringify(name.slice(0, 40))}: name client or server.`);
  }
  const answer = await askMgmt<Answer>(settings, `${route}/${name}/rotate`, 'POST', rotateTimeoutMs);
  printTable(columns, answer.certificateAuthorities);
}
