import type { Vault } from '../core/ports/vault.ts';
import { CryptoError } from '../lib/crypto-error.ts';
import { open, rewrap, seal, sealedWith } from './envelope.ts';
import type { MasterKey } from './master-key.ts';

/** The master keys of a process: it seals with one of them, and opens what any of them has sealed. */
export interface KeyRing extends Vault {
  /** Ids of all keys, in hexadecimal. */
  ids(): readonly string[];
  add(keys: readonly MasterKey[]): void;
  /** @throws CryptoError if the ring does not contain the key. */
  sealWith(id: string): void;
  /**
   * Rewraps a sealed value with the key that the ring seals with; undefined if it is already.
   * @throws EnvelopeError if the ring does not contain its key, or it is damaged.
   */
  rewrap(sealed: Buffer, row: string): Buffer | undefined;
}

/** @param keys the ring seals with the first one until {@link KeyRing.sealWith} is called. */
export function createKeyRing(keys: readonly [MasterKey, ...MasterKey[]]): KeyRing {
  const known = new Map<string, MasterKey>();
  let [sealing] = keys;

  /** An unknown key is replaced by any other, so that the envelope throws the error that names both. */
  const keyFor = (sealed: Buffer) => known.get(sealedWith(sealed)) ?? sealing;
  function add(more: readonly MasterKey[]): void {
    for (const key of more) known.set(key.id.toString('hex'), key);
  }

  add(keys);
  return {
    ids: () => [...known.keys()],
    add,
    sealWith(id) {
      const key = known.get(id);
      if (key === undefined) throw new CryptoError(`the key ring does not contain the master key ${id}`);
      sealing = key;
    },
    seal: (plaintext, row) => seal(sealing, plaintext, row),
    open: (sealed, row) => open(keyFor(sealed), sealed, row),
    rewrap(sealed, row) {
      const key = keyFor(sealed);
      return key === sealing && sealedWith(sealed) === sealing.id.toString('hex')
        ? undefined
        : rewrap(key, sealing, sealed, row);
    },
  };
}
