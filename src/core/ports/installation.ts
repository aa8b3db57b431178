/** An installation of Berth: one database, and one state directory on the node with its hosts. */
export interface Installation {
  /** UUID; also in the file `installation` of the state directory. */
  readonly id: string;
  /** The short name of the installation on its node: four hexadecimal digits, also in the file `site`. */
  readonly site: string;
  readonly createdAt: Date;
}

/** What a database says about the installation that it belongs to. */
export type DatabaseContent =
  | { readonly kind: 'empty' }
  /** A database of Berth before installations were recorded. */
  | {
      readonly kind: 'former';
      /** Ids of the master keys that its secrets are sealed with. */
      readonly masterKeys: readonly string[];
      /** Ids of the hosts that should exist. */
      readonly hosts: readonly string[];
    }
  | { readonly kind: 'recorded'; readonly installation: Installation };

/** The row of `installation`. */
export interface InstallationRecords {
  /** Undefined if the database belongs to no installation yet, or is older than the table. */
  find(): Promise<Installation | undefined>;
  /** Records the installation, unless another start was first. @returns the one on record. */
  record(installation: Pick<Installation, 'id' | 'site'>): Promise<Installation>;
}
