import type { Vault } from '../core/ports/vault.ts';
import { open, rewrap, seal, sealedWith } from './envelope.ts';
import type { MasterKey } from './master-key.ts';
import { CryptoError } from '../lib/crypto-error.ts';

/** The master keys that a process holds: it seals with one of them, and opens what any of them has sealed. */
export interface KeyRing extends Vault {
  /** Ids of all, in hexadecimal. */
  ids(): readonly string[];
  /** Adds these keys to those it holds. */
  add(keys: readonly MasterKey[]): void;
  /** @throws PkiError where it does not hold the key. */
  sealWith(id: string): void;
  /**
   * What was sealed with another key, wrapped with the one that it seals with now; undefined where it is already.
   * @throws EnvelopeError where it holds no key for it, or it is damaged.
   */
  rewrap(sealed: Buffer, row: string): Buffer | undefined;
}

/** @param keys at least one; the first one seals until {@link KeyRing.sealWith} says otherwise. */
export function createKeyRing(keys: readonly [MasterKey, ...MasterKey[]]): KeyRing {
  const held = new Map<string, MasterKey>();
  let [sealing] = keys;

  /** The key that this was sealed with; where it is not held, any other, whose refusal says why. */
  const keyFor = (sealed: Buffer) => held.get(sealedWith(sealed)) ?? sealing;
  function add(more: readonly MasterKey[]): void {
    for (const key of more) held.set(key.id.toString('hex'), key);
  }

  add(keys);
  return {
    ids: () => [...held.keys()],
    add,
    sealWith(id) {
      const key = held.get(id);
      if (key === undefined) throw new CryptoError(`the master key ${id} is not among those that were given`);
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
