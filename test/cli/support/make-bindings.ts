import { createCertificateAuthority } from '../../../src/certificates/ca.ts';
import { issueClientCertificate } from '../../../src/certificates/client-certificate.ts';
import { type Credentials, renderCredentials } from '../../../src/http/osb/credentials-body.ts';

/** The credentials of two bindings of one installation. */
export async function makeBindings(expiresAt: Date): Promise<[Credentials, Credentials]> {
  const ca = await createCertificateAuthority({ commonName: 'test', validForDays: 1 });
  const makeBinding = async () =>
    renderCredentials({
      certificate: await issueClientCertificate(ca, { commonName: 'binding', notAfter: expiresAt }),
      serverCaPem: ca.certificatePem,
      address: { host: 'berth.example.com', gatewayPort: 2376 },
      publishedPorts: { first: 20_010, count: 10 },
    });
  return [await makeBinding(), await makeBinding()];
}
