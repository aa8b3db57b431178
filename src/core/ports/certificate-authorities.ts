/** `client` signs bindings' certificates, `server` the gateways' own. */
export type AuthorityName = 'client' | 'server';

export interface AuthorityOverview {
  readonly id: string;
  readonly name: AuthorityName;
  /**
   * `next`: trusted, and signs for no app yet. `current`: signs. `retiring`: signs nothing more, and is trusted
   * while a binding needs it. `retired`: trusted by nobody.
   */
  readonly state: 'next' | 'current' | 'retiring' | 'retired';
  readonly since: Date;
  /** When its certificate ends; no binding of it is valid for longer. */
  readonly endsAt: Date;
  /** Live bindings that need it. */
  readonly liveBindings: number;
}

/** Puts another authority in the place of one, without breaking live bindings. */
export interface AuthorityRotation {
  list(): Promise<readonly AuthorityOverview[]>;
  /**
   * Returns once a new authority signs. The former one is trusted until its last binding has ended.
   * @throws RefusedError where a gateway has not taken the new one up in time: called again, it goes on from there.
   */
  rotate(name: AuthorityName): Promise<readonly AuthorityOverview[]>;
}
