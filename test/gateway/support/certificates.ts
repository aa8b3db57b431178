import type { IssuedCertificate } from '../../../src/core/ports/certificate-issuer.ts';
import { type CertificateAuthority, createCertificateAuthority } from '../../../src/certificates/ca.ts';
import { issueClientCertificate } from '../../../src/certificates/client-certificate.ts';
import { createServerRequest, signServerRequest } from '../../../src/certificates/server-certificate.ts';
import type { GatewayTls } from '../../../src/certificates/gateway-tls.ts';

export const inDays = (days: number) => new Date(Date.now() + days * 86_400_000);

/** The CAs and the gateway certificate of a small installation, created by the production code. */
export interface World {
  readonly clientCa: CertificateAuthority;
  readonly serverCa: CertificateAuthority;
  readonly tls: GatewayTls;
  issue(commonName?: string): Promise<IssuedCertificate>;
}

export async function createWorld(): Promise<World> {
  const clientCa = await createCertificateAuthority({ commonName: 'clients', validForDays: 10 });
  const serverCa = await createCertificateAuthority({ commonName: 'servers', validForDays: 10 });
  return {
    clientCa,
    serverCa,
    tls: await gatewayTls(clientCa, serverCa),
    issue: (commonName = 'binding') => issueClientCertificate(clientCa, { commonName, notAfter: inDays(1) }),
  };
}

export async function gatewayTls(
  clientCa: CertificateAuthority,
  serverCa: CertificateAuthority,
): Promise<GatewayTls> {
  const { requestPem, privateKeyPem } = await createServerRequest('gateway');
  const grant = { hosts: ['127.0.0.1', 'localhost'], notAfter: inDays(5) };
  return {
    key: privateKeyPem,
    cert: await signServerRequest(serverCa, requestPem, grant),
    clientCas: [clientCa.certificatePem],
  };
}
