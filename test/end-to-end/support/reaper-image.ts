import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const perl = '/usr/bin/perl';

/** A tar of a tree with the node's perl and `/reaper.pl`, to be imported as an image with {@link reaperEntrypoint}. */
export async function reaperTree(): Promise<Buffer> {
  const { stdout: linked } = await promisify(execFile)('ldd', [perl]);
  const libraries = [...linked.matchAll(/\/\S+/g)].map(([file]) => file);
  const files = [perl, '/usr/lib/x86_64-linux-gnu/perl-base', ...libraries].map((file) => file.slice(1));
  const { stdout: tar } = await promisify(execFile)(
    'tar',
    ['-ch', '-C', '/', ...files, '-C', import.meta.dirname, 'reaper.pl'],
    { encoding: 'buffer', maxBuffer: 64 * 1024 * 1024 },
  );
  return tar;
}

/** The instruction for `docker import --change`. */
export const reaperEntrypoint = `ENTRYPOINT ${JSON.stringify([perl, '/reaper.pl'])}`;
