import type { ApiClient } from '../api-client.ts';
import type { ChaosInstallation } from '../installation.ts';
import type { PatientPlatform } from '../platform.ts';
import type { Random } from '../random.ts';
import type { Residents } from '../residents.ts';

/** What a disaster strikes: an installation on which no operation is running, and its tenants. */
export interface Scene {
  readonly site: ChaosInstallation;
  readonly platform: PatientPlatform;
  /** The operator, at the management API. */
  readonly operator: ApiClient;
  /** At least two. */
  readonly residents: Residents;
  /** Of this strike: it depends on the seed and the number of the strike only. */
  readonly random: Random;
  readonly patienceMs: number;
}

/**
 * Something that happens to an installation from outside. After each strike, all promises are checked, and meanwhile that no
 * revoked credentials are accepted.
 */
export interface Disaster {
  /** As in the option `--disasters`. */
  readonly name: string;
  /** Why it can't strike this installation; undefined if it can. */
  impossible?(site: ChaosInstallation): string | undefined;
  /**
   * Strikes, and returns once everything is as before, with help of the operator if Berth's documents say so.
   * @throws Error if a promise was broken.
   */
  strike(scene: Scene): Promise<void>;
}
