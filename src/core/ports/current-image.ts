/**
 * The version of the image that new hosts are made from, on record of the installation: the catalog announces it, also
 * while no worker runs.
 */
export interface CurrentImageRecord {
  /** Undefined until the installation had its first image. */
  read(): Promise<string | undefined>;
  /** Records the version and notifies; does nothing if it is on record. */
  write(version: string): Promise<void>;
}

/** The version on record, as it was last read. */
export interface KnownImageVersion {
  readonly current: () => string | undefined;
  readonly stop: () => void;
}
