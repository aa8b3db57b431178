/** A master key by its id: a digest that says nothing about the key. */
export interface MasterKeyState {
  /** Hexadecimal. */
  readonly id: string;
  /** Sealed with from now on; still needed for what was sealed before; needed for nothing any more. */
  readonly state: 'current' | 'retiring' | 'retired';
  readonly since: Date;
  /** Of a retiring one: rows that can't be opened, and keep it from being retired; left out where there are none. */
  readonly unreadable?: number;
}

/** Moves all that is sealed from one master key to another, while binds go on. */
export interface KeyRotation {
  list(): Promise<readonly MasterKeyState[]>;
  /**
   * Reads the master key file again and takes the new key in it into use, in every api; what was sealed before is
   * wrapped anew behind it, also after a restart.
   * @throws RefusedError where the file holds no new key, a rotation is under way, or an api lacks the key.
   */
  rotate(): Promise<readonly MasterKeyState[]>;
}
