import type { PortBlock } from './hypervisor/host-spec.ts';
import type { JsonObject } from './model/json.ts';
import { formatPortRange } from '../lib/port-range.ts';

/** Issues client certificates. The authority's key stays behind this port. */
export interface CertificateIssuer {
  issue(request: { commonName: string; notAfter: Date }): Promise<IssuedCredentials>;
}

/** A client certificate, and what its holder checks gateways with. */
export interface IssuedCredentials extends IssuedCertificate {
  /** Certificate of the authority that vouches for the gateways, PEM. */
  readonly serverAuthorityPem: string;
  readonly authorities: BindingAuthorities;
}

/** Ids of the authority that signed a binding's certificate, and of the one that its holder trusts. */
export interface BindingAuthorities {
  readonly client: string;
  readonly server: string;
}

export interface IssuedCertificate {
  /** Lower-case hexadecimal, no leading zeros. */
  readonly serial: string;
  readonly certificatePem: string;
  readonly privateKeyPem: string;
  readonly expiresAt: Date;
}

/** Encrypts what is kept in the database, tied to the row that it stands in. */
export interface Vault {
  /** @param row names the row and column, such as `bindings/<id>/credentials`; opening needs the same. */
  seal(plaintext: Buffer, row: string): Buffer;
  open(sealed: Buffer, row: string): Buffer;
}

/** Where tenants reach the gateway and the published ports. */
export interface PublicAddress {
  /** Name or address. */
  readonly host: string;
  readonly gatewayPort: number;
}

/** What an app gets by a binding. Everything that the docker CLI needs is in it, as text. */
export interface Credentials {
  readonly docker_host: string;
  /** Certificate of the authority that vouches for the gateway, PEM. */
  readonly ca: string;
  /** The binding's own certificate, PEM. */
  readonly cert: string;
  /** Its private key, PEM. */
  readonly key: string;
  readonly host: string;
  /** The range of ports that containers can publish, such as "20010-20019"; empty where there are none. */
  readonly published_ports: string;
  readonly expires_at: string;
  readonly env: {
    readonly DOCKER_HOST: string;
    readonly DOCKER_TLS_VERIFY: string;
    readonly DOCKER_CERT_PATH: string;
  };
}

/**
 * A moment as the specification's clients parse it: exactly one fractional digit,
 * `2026-11-22T12:00:59.0Z` (OSB 2.17, "Binding Metadata Object").
 */
export function osbTimestamp(moment: Date): string {
  const iso = moment.toISOString();
  return `${iso.slice(0, 19)}.${iso.slice(20, 21)}Z`;
}

/** Puts together what an app gets. */
export function makeCredentials(
  issued: IssuedCertificate,
  serverAuthorityPem: string,
  address: PublicAddress,
  publishedPorts: PortBlock,
): Credentials {
  const dockerHost = `tcp://${hostInUrl(address.host)}:${address.gatewayPort}`;
  return {
    docker_host: dockerHost,
    ca: serverAuthorityPem,
    cert: issued.certificatePem,
    key: issued.privateKeyPem,
    host: address.host,
    published_ports: formatPortRange(publishedPorts),
    expires_at: osbTimestamp(issued.expiresAt),
    env: {
      DOCKER_HOST: dockerHost,
      DOCKER_TLS_VERIFY: '1',
      DOCKER_CERT_PATH:
        'Set this to a directory that holds ca, cert and key of this binding as ca.pem, cert.pem and key.pem (`berth context` writes them).',
    },
  };
}

/** IPv6 addresses stand in brackets in a URL (RFC 3986, 3.2.2). */
function hostInUrl(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}

/** The endpoints of a binding (OSB 2.17, "Endpoint Object"). */
export function endpoints(address: PublicAddress, publishedPorts: PortBlock): readonly JsonObject[] {
  const gateway = { host: address.host, ports: [String(address.gatewayPort)], protocol: 'tcp' };
  if (publishedPorts.count === 0) return [gateway];
  return [gateway, { host: address.host, ports: [formatPortRange(publishedPorts)], protocol: 'all' }];
}
