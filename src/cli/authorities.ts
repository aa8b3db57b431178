import type { Settings } from '../config/settings.ts';
import type { CertificateAuthorityOverview } from '../core/ports/certificate-authorities.ts';
import { askMgmt, MgmtError } from './mgmt-client.ts';
import { type Column, printTable } from './table.ts';

/** As JSON carries it. */
type AuthorityLine = Omit<CertificateAuthorityOverview, 'since' | 'endsAt'> &
  Record<'since' | 'endsAt', string>;
interface Answer {
  readonly certificateAuthorities: readonly AuthorityLine[];
}

const columns: readonly Column<AuthorityLine>[] = [
  ['NAME', ({ name }) => name],
  ['AUTHORITY', ({ id }) => id.slice(0, 8)],
  ['STATE', ({ state }) => state],
  ['SINCE', ({ since }) => since.slice(0, 19)],
  ['ENDS', ({ endsAt }) => endsAt.slice(0, 10)],
  ['BINDINGS', ({ liveBindings }) => String(liveBindings)],
];
/** Gateways are given 25 s to take a new authority up. */
const rotateTimeoutMs = 60_000;

/** `berth authority list` */
export async function runAuthorityList(settings: Settings): Promise<void> {
  printTable(
    columns,
    (await askMgmt<Answer>(settings, '/mgmt/certificate-authorities')).certificateAuthorities,
  );
}

/** `berth authority rotate client|server` */
export async function runAuthorityRotate(settings: Settings, name: string): Promise<void> {
  if (name !== 'client' && name !== 'server') {
    throw new MgmtError(`${JSON.stringify(name.slice(0, 40))} is no authority: name client or server`);
  }
  const route = `/mgmt/certificate-authorities/${name}/rotate`;
  printTable(
    columns,
    (await askMgmt<Answer>(settings, route, 'POST', rotateTimeoutMs)).certificateAuthorities,
  );
}
