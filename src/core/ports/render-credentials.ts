import type { PortBlock } from '../hypervisor/host-spec.ts';
import type { PublicAddress } from '../model/public-address.ts';
import type { IssuedCertificate } from './certificate-issuer.ts';

/** What a binding's credentials are made of. */
export interface BindingGrant {
  readonly certificate: IssuedCertificate;
  /** Certificate of the CA that signs the gateways' certificates, PEM. */
  readonly serverCaPem: string;
  readonly address: PublicAddress;
  readonly publishedPorts: PortBlock;
}

/**
 * Renders credentials in the form that an app gets. A port, because a bind stores exactly what it answers: a later
 * fetch or retry must answer the same credentials, even if the form or the broker's address has changed since.
 */
export type RenderCredentials = (grant: BindingGrant) => object;
