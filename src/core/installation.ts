import type { DatabaseContent, Installation } from './ports/installation.ts';

/** Database and state directory don't belong together. The message says what was found and each remedy. */
export class InstallationError extends Error {
  override readonly name = 'InstallationError';
}

/** What a state directory says about the installation that it belongs to. */
export interface StateDirectory {
  readonly path: string;
  /** Undefined if it belongs to none yet. */
  readonly id: string | undefined;
  /** Of a first start that was interrupted. */
  readonly unconfirmedId: string | undefined;
  readonly site: string;
  /** Ids of the hosts whose files are in it. */
  readonly hosts: readonly string[];
  /** Ids of the keys in the master key file. */
  readonly masterKeys: readonly string[];
}

const correctUrl =
  'If the address of Postgres is wrong, correct DATABASE_URL_FILE (without it, Berth runs its own Postgres in the state directory).';
const newDirectory = 'For a new installation, set BERTH_STATE_DIR to an empty folder.';

function refuse(found: string, ...remedies: string[]): never {
  throw new InstallationError([`${found} Nothing was changed.`, ...remedies].join('\n  - '));
}

/**
 * Checks, before a start changes anything, that the database is the one of the state directory, or that both are new.
 * @throws InstallationError if they don't belong together.
 */
export function checkDatabase(directory: StateDirectory, content: DatabaseContent): void {
  const { path, id } = directory;
  if (content.kind === 'recorded') {
    checkInstallation(directory, content.installation);
    checkSite(directory, content.installation);
    return;
  }
  if (content.kind === 'empty') {
    if (id !== undefined || directory.hosts.length > 0) {
      refuse(
        `The database is empty, but ${path} belongs to ${id === undefined ? 'an installation' : `installation ${id}`} that has used another one${directory.hosts.length > 0 ? `, and ${directory.hosts.length} of its hosts exist` : ''}.`,
        correctUrl,
        'If the database is lost, restore it from your backup.',
        newDirectory,
      );
    }
    return;
  }
  const missingKeys = content.masterKeys.filter((key) => !directory.masterKeys.includes(key));
  if (content.masterKeys.length > 0 && missingKeys.length === content.masterKeys.length) {
    refuse(
      `The database does not say which installation it belongs to, since a former version of Berth wrote it. It seems to be another one's than that of ${path}: its secrets are sealed with the master key ${missingKeys.join(' and ')}, which the master key file does not contain.`,
      correctUrl,
      'If the file is missing, restore it from your backup, or set BERTH_MASTER_KEY_FILE.',
      'If the state directory is wrong, set BERTH_STATE_DIR.',
    );
  }
  // The id in the file is the operator's word for it: see the last remedy.
  if (
    id === undefined &&
    content.hosts.length > 0 &&
    !content.hosts.some((host) => directory.hosts.includes(host))
  ) {
    refuse(
      `The database does not say which installation it belongs to, since a former version of Berth wrote it. It seems to be another one's than that of ${path}: none of the ${content.hosts.length} hosts on record is there.`,
      correctUrl,
      'If the state directory is wrong, set BERTH_STATE_DIR.',
      `If those hosts are lost, confirm that the database belongs here: cat /proc/sys/kernel/random/uuid > ${path}/installation`,
    );
  }
}

/**
 * Checks that the state directory belongs to this installation.
 * @throws InstallationError otherwise.
 */
export function checkInstallation(
  { path, id, unconfirmedId }: Pick<StateDirectory, 'path' | 'id' | 'unconfirmedId'>,
  installation: Installation,
): void {
  const own = id ?? unconfirmedId;
  if (own === installation.id) return;
  refuse(
    `The database belongs to installation ${installation.id} (since ${installation.createdAt.toISOString()}), and the state directory ${path} ${id === undefined ? 'is new' : `to installation ${id}`}.`,
    correctUrl,
    'A second installation needs another database.',
    id === undefined
      ? `For an api or a gateway on a further node, or if the state directory of that installation is lost: echo ${installation.id} > ${path}/installation`
      : 'If the state directory is wrong, set BERTH_STATE_DIR.',
  );
}

/**
 * Checks that the hosts of the installation are in this state directory, and not in that of another node.
 * @throws InstallationError otherwise.
 */
export function checkSite(
  { path, site }: Pick<StateDirectory, 'path' | 'site'>,
  { id, site: recorded }: Installation,
): void {
  if (site === recorded) return;
  refuse(
    `The hosts of installation ${id} are in the state directory with the site id ${recorded}, and that of ${path} is ${site}.`,
    'On a further node, run an api or a gateway alone ("npm start -- api"): hosts and their worker are on one node.',
    `If the state directory of the installation is lost: echo ${recorded} > ${path}/site`,
  );
}
