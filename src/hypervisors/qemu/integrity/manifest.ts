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
 * The parts of what a host is made of. Each is a list of lines that people can read, so that an alteration can be
 * named by the lines that are missing and those that were not there.
 */
export const parts = [
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
  'machine firewall',
] as const;
export type Part = (typeof parts)[number];
export type Facts = Readonly<Partial<Record<Part, readonly string[]>>>;

/** What a host was made of, written down when its machine was started and when its network was opened. */
export interface Manifest {
  readonly hostId: string;
  /** ISO 8601. */
  readonly madeAt: string;
  readonly facts: Facts;
}

/** Manifests, kept beside the sockets of the running machine: they end with it. */
export interface Manifests {
  write(file: string, manifest: Manifest): Promise<void>;
  /** @returns undefined where there is none. @throws HypervisorError where it is not as it was signed. */
  read(file: string): Promise<Manifest | undefined>;
}

/** `manifest.json`: the signature (Ed25519, base64) is over the exact text. */
interface Signed {
  readonly manifest: string;
  readonly signature: string;
}

/** Signs with a key of this installation, which only root can read; it is made at the first use. */
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
