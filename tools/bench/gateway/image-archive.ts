import { createHash, randomBytes } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import { pack } from 'tar-stream';

/**
 * An archive that `docker load` takes: one image of one layer, which holds one file of random bytes.
 * Form: https://github.com/moby/docker-image-spec, "combined image JSON and filesystem changeset format".
 */
export async function makeImageArchive(mib: number): Promise<Buffer> {
  const layer = await tar({ file: randomBytes(mib * 2 ** 20) });
  const digest = createHash('sha256').update(layer).digest('hex');
  const config = {
    architecture: 'amd64',
    os: 'linux',
    config: {},
    rootfs: { type: 'layers', diff_ids: [`sha256:${digest}`] },
  };
  return tar({
    'layer.tar': layer,
    'config.json': JSON.stringify(config),
    'manifest.json': JSON.stringify([
      { Config: 'config.json', RepoTags: ['bench:load'], Layers: ['layer.tar'] },
    ]),
  });
}

function tar(files: Readonly<Record<string, Buffer | string>>): Promise<Buffer> {
  const archive = pack();
  for (const [name, content] of Object.entries(files)) archive.entry({ name }, content);
  archive.finalize();
  return buffer(archive);
}
