import { formatPortRange } from '../../lib/port-range.ts';
import type { BindingGrant } from '../../core/ports/render-credentials.ts';
import { osbTimestamp } from './timestamp.ts';

/** A binding's credentials as an app gets them: everything that the docker CLI needs, as text. */
export interface Credentials {
  readonly docker_host: string;
  /** Certificate of the CA that signs the gateway's certificate, PEM. */
  readonly ca: string;
  /** The binding's client certificate, PEM. */
  readonly cert: string;
  /** Private key of the client certificate, PEM. */
  readonly key: string;
  readonly host: string;
  /** The ports that containers can publish, such as "20010-20019"; empty if there are none. */
  readonly published_ports: string;
  readonly expires_at: string;
  readonly env: {
    readonly DOCKER_HOST: string;
    readonly DOCKER_TLS_VERIFY: string;
  };
  /** How to use them, for people. */
  readonly hint: string;
}

/**
 * Renders the credentials of a new binding. The broker stores this JSON encrypted and answers it again for a fetch
 * or a retry, so the fields of existing bindings can't be renamed.
 */
export function renderCredentials({
  certificate,
  serverCaPem,
  address,
  publishedPorts,
}: BindingGrant): Credentials {
  const dockerHost = `tcp://${hostInUrl(address.host)}:${address.gatewayPort}`;
  return {
    docker_host: dockerHost,
    ca: serverCaPem,
    cert: certificate.certificatePem,
    key: certificate.privateKeyPem,
    host: address.host,
    published_ports: formatPortRange(publishedPorts),
    expires_at: osbTimestamp(certificate.expiresAt),
    env: {
      DOCKER_HOST: dockerHost,
      DOCKER_TLS_VERIFY: '1',
    },
    hint: 'Write ca, cert and key to ca.pem, cert.pem and key.pem in a directory, set DOCKER_CERT_PATH to it, and set the variables of env. `berth context` does this.',
  };
}

/** IPv6 addresses are bracketed in a URL (RFC 3986, 3.2.2). */
function hostInUrl(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}
