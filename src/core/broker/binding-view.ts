import type { PortBlock } from '../hypervisor/host-spec.ts';
import type { Vault } from '../ports/vault.ts';
import { refused } from '../errors.ts';
import type { Binding } from '../model/binding.ts';
import type { Host } from '../model/host.ts';
import type { PublicAddress } from '../model/public-address.ts';

/** What a platform gets for a binding. */
export interface BindingView {
  /** False if the same request was answered before. */
  readonly isNew: boolean;
  /** As the bind rendered them. */
  readonly credentials: object;
  readonly address: PublicAddress;
  readonly publishedPorts: PortBlock;
  readonly expiresAt: Date;
  readonly renewBefore: Date;
}

/** The share of a certificate's lifetime that is left when it should be renewed. */
const renewShare = 0.1;

/** Name of the row and column to which sealed credentials are tied. */
export function credentialsRow(bindingId: string): string {
  return `bindings/${bindingId}/credentials`;
}

/** The view of a binding whose credentials are at hand. */
export function newBindingView(
  address: PublicAddress,
  host: Host,
  { credentials, createdAt, expiresAt }: { credentials: object; createdAt: Date; expiresAt: Date },
): BindingView {
  const lifetimeMs = expiresAt.getTime() - createdAt.getTime();
  return {
    isNew: true,
    credentials,
    address,
    publishedPorts: host.publishedPorts,
    expiresAt,
    renewBefore: new Date(expiresAt.getTime() - lifetimeMs * renewShare),
  };
}

/**
 * The view of a stored binding.
 * @throws RefusedError (404) if it has been revoked.
 */
export function storedBindingView(
  { address, vault }: { readonly address: PublicAddress; readonly vault: Vault },
  binding: Binding,
  host: Host,
): BindingView {
  if (binding.sealedCredentials === undefined) throw refused.bindingNotFound();
  const json = vault.open(binding.sealedCredentials, credentialsRow(binding.id)).toString('utf8');
  const credentials = JSON.parse(json) as object;
  return { ...newBindingView(address, host, { ...binding, credentials }), isNew: false };
}
