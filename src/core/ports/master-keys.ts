/** A master key by its id: a digest that says nothing about the key. */
export interface MasterKeyState {
  /** Hexadecimal. */
  readonly id: string;
  /** Sealed with from now on; still needed for what was sealed before; needed for nothing any more. */
  readonly state: 'current' | 'retiring' | 'retired';
  readonly since: Date;
  /** Of a retiring key: the number of rows that can't be opened, and so prevent its retirement; undefined if none. */
  readonly unreadable?: number;
}

/** Moves everything that is sealed from one master key to another, while binds continue. */
export interface KeyRotation {
  list(): Promise<readonly MasterKeyState[]>;
  /**
   * Reads the master key file again and uses the new key in it, in every api; secrets sealed before are
   * rewrapped in the background, also after a restart.
   * @throws RefusedError if the file contains no new key, a rotation is in progress, or an api lacks the key.
   */
  rotate(): Promise<readonly MasterKeyState[]>;
}

/** Which master keys secrets are sealed with; the keys themselves are in files. */
export interface MasterKeyStore {
  /** Every master key that anything was ever sealed with, the newest first. */
  list(): Promise<readonly MasterKeyState[]>;
  /** Records the first master key; changes nothing if there is one already. */
  recordFirst(id: string): Promise<void>;
  /** From now on secrets are sealed with this key; the former one is needed until everything is rewrapped. */
  promote(id: string): Promise<void>;
  /** Nothing is sealed with these any more. */
  retire(ids: readonly string[]): Promise<void>;
}

/** How the apis tell each other about master keys. */
export interface MasterKeyEvents {
  /** Calls back whenever the current master key may have changed. Returns what unsubscribes. */
  onChange(callback: () => void): () => void;
  /** Has every api read its master key file again, for this new key that is not promoted yet. */
  requestReread(id: string): Promise<void>;
  /** Calls back when an api has asked for it. Returns what unsubscribes. */
  onRereadRequested(callback: () => void): () => void;
}
