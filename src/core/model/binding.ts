import type { JsonObject } from './json.ts';

/** An OSB service binding: one client certificate for one instance. */
export interface Binding {
  readonly id: string;
  readonly osbId: string;
  readonly instanceId: string;
  readonly serial: string;
  readonly createdAt: Date;
  readonly expiresAt: Date;
  readonly state: 'live' | 'revoked';
  readonly revokedAt: Date | undefined;
  /** What was requested, to tell a retry from a conflict. */
  readonly request: BindingRequest;
  /** The credentials, encrypted under the master key and tied to this row; undefined once revoked. */
  readonly sealedCredentials: Buffer | undefined;
}

export interface BindingRequest {
  readonly appGuid: string | undefined;
  readonly parameters: JsonObject;
  /** The platform's id of the binding that this one replaces. */
  readonly predecessor: string | undefined;
}
