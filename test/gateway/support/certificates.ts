import type { IssuedCertificate } from '../../../src/core/ports/certificate-issuer.ts';
import { type CertificateAuthority, createCertificateAuthority } from '../../../src/certificates/ca.ts';
import { issueClientCertificate } from '../../../src/certificates/client-certificate.ts';
import { createServerRequest, signServerRequest } from '../../../src/certificates/server-certificate.ts';
import type { GatewayTls } from '../../../src/certificates/gateway-tls.ts';

export const inDays = (days: number) => new Date(Date.now() + days * 86_400_000);

/** Everything that is signed in a small Berth: made once, by the real thing. */
export interface World {
  readonly clientAuthority: CertificateAuthority;
  readonly serverAuthority: CertificateAuthority;
  readonly tls: GatewayTls;
  issue(commonName?: string): Promise<IssuedCertificate>;
}

export async function createWorld(): Promise<World> {
  const clientAuthority = await createCertificateAuthority({ commonName: 'clients', validForDays: 10 });
  const serverAuthority = await createCertificateAuthority({ commonName: 'servers', validForDays: 10 });
  return {
    clientAuthority,
    serverAuthority,
    tls: await gatewayTls(clientAuthority, serverAuthority),
    issue: (commonName = 'binding') =>
      issueClientCertificate(clientAuthority, { commonName, notAfter: inDays(1) }),
  };
}

export async function gatewayTls(
  clientAuthority: CertificateAuthority,
  serverAuthority: CertificateAuthority,
): Promise<GatewayTls> {
  const { requestPem, privateKeyPem } = await createServerRequest('gateway');
  const grant = { hosts: ['127.0.0.1', 'localhost'], notAfter: inDays(5) };
  return {
    key: privateKeyPem,
    cert: await signServerRequest(serverAuthority, requestPem, grant),
    clientCas: [clientAuthority.certificatePem],
  };
}
