import type { Binding } from '../model/binding.ts';
import type { BindingCaIds } from './certificate-issuer.ts';
import type { BindingRequest } from '../model/binding.ts';

export interface NewBinding {
  readonly id: string;
  readonly osbId: string;
  readonly instanceId: string;
  readonly tenantId: string;
  readonly serial: string;
  readonly caIds: BindingCaIds;
  readonly certificate: string;
  readonly sealedCredentials: Buffer;
  readonly createdAt: Date;
  readonly expiresAt: Date;
  readonly request: BindingRequest;
}

/** Bindings. */
export interface BindingRecords {
  binding(instanceId: string, osbId: string): Promise<Binding | undefined>;
  /** False, and nothing is written, if the instance already has a binding with this id. */
  insertBinding(binding: NewBinding): Promise<boolean>;
  /** Lets the id of a binding that was revoked at least `restMs` milliseconds ago be used again; false if it may not be yet. */
  releaseBindingId(id: string, restMs: number): Promise<boolean>;
  /** Revokes a binding and deletes its credentials; gateways are notified on commit. */
  revokeBinding(id: string): Promise<void>;
  /** Revokes every live binding of an instance; returns their ids. */
  revokeBindingsOf(instanceId: string): Promise<readonly string[]>;
}
