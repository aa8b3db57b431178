import { createHash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { busyboxTree } from '../../tools/lib/docker.ts';
import type { OutsidePeer } from '../../tools/lib/outside-peer.ts';
import { createCertificateAuthority } from '../../src/certificates/ca.ts';
import { createServerRequest, signServerRequest } from '../../src/certificates/server-certificate.ts';

/** A registry outside of the node, with one image under every name. Its CA is unknown to engines. */
export interface Registry {
  /** `host:port` of its TLS side. */
  readonly name: string;
  /** The same images over HTTP, as a mirror. */
  readonly mirror: string;
  /** The CA of its certificate, PEM. */
  readonly caPem: string;
  remove(): Promise<void>;
}

const digestOf = (content: Buffer) => `sha256:${createHash('sha256').update(content).digest('hex')}`;

export async function startRegistry(outside: OutsidePeer): Promise<Registry> {
  const folder = await mkdtemp(path.join(tmpdir(), 'berth-registry-'));
  const host = outside.internetAddress;
  const ca = await createCertificateAuthority({ commonName: 'registry authority', validForDays: 2 });
  const { requestPem, privateKeyPem } = await createServerRequest('registry');
  const notAfter = new Date(Date.now() + 86_400_000);
  const certificate = await signServerRequest(ca, requestPem, { hosts: [host], notAfter });

  const tree = await busyboxTree();
  const layer = gzipSync(tree);
  const config = Buffer.from(
    JSON.stringify({
      architecture: 'amd64',
      os: 'linux',
      config: { Cmd: ['/bin/sh'] },
      rootfs: { type: 'layers', diff_ids: [digestOf(tree)] },
    }),
  );
  const part = (mediaType: string, content: Buffer) => ({
    mediaType,
    size: content.length,
    digest: digestOf(content),
  });
  const manifest = {
    schemaVersion: 2,
    mediaType: 'application/vnd.docker.distribution.manifest.v2+json',
    config: part('application/vnd.docker.container.image.v1+json', config),
    layers: [part('application/vnd.docker.image.rootfs.diff.tar.gzip', layer)],
  };
  const files: [string, string | Buffer][] = [
    ['key.pem', privateKeyPem],
    ['cert.pem', certificate],
    ['manifest.json', JSON.stringify(manifest)],
    ...[config, layer].map((content): [string, Buffer] => [digestOf(content).replace(':', '-'), content]),
  ];
  for (const [name, content] of files) await writeFile(path.join(folder, name), content);
  outside.start(process.execPath, path.join(import.meta.dirname, 'registry-server.mjs'), folder);
  return {
    name: `${host}:5443`,
    mirror: `http://${host}:5000`,
    caPem: ca.certificatePem,
    remove: () => rm(folder, { recursive: true, force: true }),
  };
}
