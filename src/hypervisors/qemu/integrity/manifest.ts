import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  verify,
} from 'node:crypto';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { createOnce } from '../../../lib/create-once.ts';
import { writeFileAtomically } from '../../../lib/write-file-atomically.ts';

/**
 * The sections of a manifest. Each is a list of readable lines, so that drift can be described by the lines that are
 * missing and those that are new.
 */
export const manifestSections = [
  'process',
  'argv',
  'user',
  'privileges',
  'namespaces',
  'mounts',
  'rlimits',
  'cgroup',
  'files',
  'devices',
  'digests',
  'firewall',
  'rule handles',
  'network',
] as const;
export type ManifestSection = (typeof manifestSections)[number];
export type Facts = { readonly [Section in ManifestSection]?: readonly string[] | undefined };

/** How a host was made: recorded when its VM was started and when its network was opened. */
export interface Manifest {
  readonly hostId: string;
  /** ISO 8601. */
  readonly madeAt: string;
  readonly facts: Facts;
}

/** Stores manifests beside the sockets of the running VM; they are removed with it. */
export interface Manifests {
  write(file: string, manifest: Manifest): Promise<void>;
  /** @returns undefined if there is none. @throws HypervisorError if it is unreadable or its signature is wrong. */
  read(file: string): Promise<Manifest | undefined>;
}

/** `manifest.json`: the signature (Ed25519, base64) is over the exact text. */
interface Signed {
  readonly manifest: string;
  readonly signature: string;
}

/** Signs with the installation's key, which only root can read; the key is made on first use. */
export function createManifests(stateDirectory: string): Manifests {
  const keyFile = path.join(stateDirectory, 'manifest-key.pem');
  let key: Promise<KeyObject> | undefined;
  const signingKey = () => (key ??= readKey(keyFile));
  return {
    async write(file, manifest) {
      const text = JSON.stringify(manifest);
      const signature = sign(null, Buffer.from(text), await signingKey()).toString('base64');
      const signed: Signed = { manifest: text, signature };
      // Not synced: like the VM, it does not outlive a power cut.
      await writeFileAtomically(file, JSON.stringify(signed), { durable: false });
    },
    async read(file) {
      let text: string;
      try {
        text = await readFile(file, 'utf8');
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
        throw error;
      }
      try {
        const { manifest, signature } = JSON.parse(text) as Signed;
        const publicKey = createPublicKey(await signingKey());
        if (verify(null, Buffer.from(manifest), publicKey, Buffer.from(signature, 'base64'))) {
          return JSON.parse(manifest) as Manifest;
        }
      } catch (cause) {
        throw new HypervisorError(`${file} can't be read`, { cause });
      }
      throw new HypervisorError(`${file} does not carry a signature of this installation`);
    },
  };
}

async function readKey(file: string): Promise<KeyObject> {
  await createOnce(file, () =>
    generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  );
  return createPrivateKey(await readFile(file));
}
