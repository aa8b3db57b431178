import type { CertificateIssuer } from '../core/ports/certificate-issuer.ts';
import type { SignedRequest } from '../core/ports/certificate-requests.ts';
import type { GatewayNames } from '../core/ports/gateway-names.ts';
import { issueClientCertificate } from './client-certificate.ts';
import type { LoadedCas } from './loaded-cas.ts';
import { signServerRequest } from './server-certificate.ts';

const dayMs = 24 * 3600 * 1000;
/** Gateways renew their certificate 30 days before it expires. */
const serverCertificateDays = 90;

/** Issues bindings' certificates. */
export function createIssuer(cas: LoadedCas): CertificateIssuer {
  return {
    async issue(request) {
      const client = cas.signer(cas.current('client'));
      const server = cas.current('server');
      const issued = await issueClientCertificate(client.ca, {
        ...request,
        // No certificate outlives its CA; the answer to the platform contains the actual expiry.
        notAfter: earlier(request.notAfter, client.expiresAt),
      });
      return {
        ...issued,
        serverCaPem: server.certificatePem,
        caIds: { client: client.id, server: server.id },
      };
    },
  };
}

/** Signs gateways' certificates. The chain leads to every server CA that an app may trust. */
export function createGatewaySigner(cas: LoadedCas, names: Pick<GatewayNames, 'list'>) {
  return async (requestPem: string): Promise<SignedRequest> => {
    const stored = cas.next('server') ?? cas.current('server');
    const server = cas.signer(stored);
    const certificate = await signServerRequest(server.ca, requestPem, {
      hosts: await names.list(),
      notAfter: earlier(new Date(Date.now() + serverCertificateDays * dayMs), server.expiresAt),
    });
    return { chain: [certificate, ...cas.crossChain(stored)].join(''), ca: stored.id };
  };
}

const earlier = (one: Date, other: Date) => (one < other ? one : other);
