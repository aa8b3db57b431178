import { masterKeyFile, masterKeyText } from '../config/secrets.ts';
import { type Settings, SettingsError } from '../config/settings.ts';
import { refused } from '../core/errors.ts';
import type { MasterKeyStore } from '../core/ports/master-keys.ts';
import { CryptoError } from '../lib/crypto-error.ts';
import { createKeyRing, type KeyRing } from './key-ring.ts';
import { createMasterKeyText, masterKeysFromText } from './master-key.ts';

/** A process's request to its supervisor for the text of the master key file, over Node's IPC channel. */
export const masterKeyQuestion = { ask: 'master-key' } as const;
export interface MasterKeyAnswer {
  readonly masterKey: string | undefined;
}

/**
 * Opens the key ring with the keys of the master key file, before anything else uses the database. The file is
 * generated only if nothing is sealed yet.
 * @throws SettingsError if the file lacks a key that secrets are sealed with. Nothing has been changed then.
 */
export async function openKeyRing(settings: Settings, store: MasterKeyStore): Promise<KeyRing> {
  const known = await store.list();
  const needed = known.filter(({ state }) => state !== 'retired').map(({ id }) => id);
  const file = masterKeyFile(settings);
  const text = await masterKeyText(settings, needed.length === 0 ? createMasterKeyText : undefined);
  if (text === undefined) {
    throw new SettingsError(
      `BERTH_MASTER_KEY_FILE: ${file} does not exist, but secrets in the database are sealed with the master key ${needed.join(' and ')}. Restore the file from your backup. Nothing was changed.`,
    );
  }
  const ring = readRing(file, text);
  const lacking = needed.filter((id) => !ring.ids().includes(id));
  if (lacking.length > 0) {
    throw new SettingsError(
      `BERTH_MASTER_KEY_FILE: ${file} contains the master key ${ring.ids().join(' and ')}, but secrets in the database are sealed with ${lacking.join(' and ')}: name the file that contains it, or restore it from your backup. Nothing was changed.`,
    );
  }
  const [first] = ring.ids();
  if (needed.length === 0 && first !== undefined) await store.recordFirst(first);
  const current = (await store.list()).find(({ state }) => state === 'current');
  if (current !== undefined) ring.sealWith(current.id);
  return ring;
}

function readRing(file: string, text: string): KeyRing {
  try {
    return createKeyRing(masterKeysFromText(text));
  } catch (error) {
    if (error instanceof CryptoError) {
      throw new SettingsError(`BERTH_MASTER_KEY_FILE: ${file} can't be used: ${error.message}.`);
    }
    throw error;
  }
}

const answerTimeoutMs = 5_000;

/**
 * Reads the master key file again. If this process has dropped the privilege to read it, its supervisor sends the
 * text.
 * @throws RefusedError if neither can.
 */
export async function rereadMasterKeys(settings: Settings): Promise<string> {
  const text = await masterKeyText(settings, undefined).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'EACCES') return undefined;
    throw error;
  });
  const answer = text ?? (await askSupervisor());
  if (answer === undefined) {
    throw refused.conflict(
      `This api is no longer allowed to read ${masterKeyFile(settings)}: restart it, and try again.`,
    );
  }
  return answer;
}

function askSupervisor(): Promise<string | undefined> {
  return new Promise((resolve) => {
    if (process.send === undefined) {
      resolve(undefined);
      return;
    }
    const done = (message: unknown) => {
      clearTimeout(timer);
      process.off('message', done);
      resolve((message as MasterKeyAnswer | undefined)?.masterKey);
    };
    const timer = setTimeout(done, answerTimeoutMs);
    process.on('message', done);
    process.send(masterKeyQuestion);
  });
}
