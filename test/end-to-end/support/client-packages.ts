import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { access, mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { cacheDirectory } from '../../support/vm-cache.ts';

const suite = 'trixie';
/** The clients, and the pure Python that docker-py needs of the same release. */
const packages = [
  'docker-cli',
  'docker-buildx',
  'docker-compose',
  'python3-docker',
  'python3-requests',
  'python3-urllib3',
  'python3-idna',
  'python3-certifi',
  'python3-charset-normalizer',
];
const deadlineMs = 300_000;

const run = async (program: string, args: readonly string[], cwd?: string) =>
  (await promisify(execFile)(program, [...args], { cwd, timeout: deadlineMs, killSignal: 'SIGKILL' })).stdout;
const say = (text: string) => process.stderr.write(`clients of Debian ${suite}: ${text}\n`);

/**
 * The folder with the unpacked clients of Debian 13. On the first call on a node they are downloaded from its Debian mirror
 * with its keys; nothing is installed, and apt's own sources and lists are left as they are.
 */
export async function clientPackages(): Promise<string> {
  const key = createHash('sha256')
    .update([suite, ...packages].join(' '))
    .digest('hex');
  const folder = path.join(cacheDirectory, 'clients', key.slice(0, 16));
  if (await isThere(folder)) return folder;
  await mkdir(path.dirname(folder), { recursive: true });
  const work = await mkdtemp(path.join(path.dirname(folder), 'new-'));
  try {
    const unpacked = await downloadInto(work);
    // Last and at once, so that an interrupted download never counts as complete.
    await rename(unpacked, folder).catch(async (error: unknown) => {
      // Another test run was faster.
      if (!(await isThere(folder))) throw error;
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return folder;
}

const isThere = (file: string) =>
  access(file).then(
    () => true,
    () => false,
  );

async function downloadInto(work: string): Promise<string> {
  const apt = await aptFor(work);
  say('reading the package lists');
  await run('apt-get', [...apt, '-qq', '--error-on=any', 'update']);
  say('downloading');
  await run('apt-get', [...apt, '-qq', 'download', ...packages], work);
  const unpacked = path.join(work, 'unpacked');
  const files = (await readdir(work)).filter((name) => name.endsWith('.deb'));
  for (const file of files) await run('dpkg-deb', ['--extract', path.join(work, file), unpacked]);
  say(`unpacked ${files.map((file) => file.split('_').slice(0, 2).join(' ')).join(', ')}`);
  return unpacked;
}

/** Options of apt-get for the suite alone, with lists in the folder. */
async function aptFor(work: string): Promise<string[]> {
  const sources = path.join(work, 'sources.list');
  await writeFile(sources, (await mirrors()).map((uri) => `deb ${uri} ${suite} main\n`).join(''));
  for (const name of ['lists', 'cache/archives']) {
    await mkdir(path.join(work, name, 'partial'), { recursive: true });
  }
  const options = [
    `Dir::Etc::SourceList=${sources}`,
    'Dir::Etc::SourceParts=/dev/null',
    `Dir::State::Lists=${path.join(work, 'lists')}`,
    `Dir::Cache=${path.join(work, 'cache')}`,
    // apt's sandbox user can't write there.
    'APT::Sandbox::User=root',
    'Acquire::Languages=none',
    'Acquire::Retries=1',
    'Acquire::http::Timeout=30',
    'Acquire::https::Timeout=30',
  ];
  return options.flatMap((option) => ['-o', option]);
}

/** The node's Debian mirrors, of whatever release; image/build chooses the guest's in the same way. */
async function mirrors(): Promise<string[]> {
  const filter = ['Created-By: Packages', 'Origin: Debian', 'Component: main'];
  const lines = await run('apt-get', ['indextargets', '--format', '$(CODENAME) $(REPO_URI)', ...filter]);
  const found = lines.split('\n').flatMap((line) => /^[a-z]+(?:-updates)? (\S+)$/.exec(line)?.[1] ?? []);
  if (found.length === 0) throw new Error('apt has no Debian mirror, or no package lists: apt-get update');
  return [...new Set(found)];
}
