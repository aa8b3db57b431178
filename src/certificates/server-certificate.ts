import { webcrypto } from 'node:crypto';
import { isIP } from 'node:net';
import type { CertificateAuthority } from './ca.ts';
import { createSerial, subjectOf, toPem } from './certificate-fields.ts';
import { signLeaf } from './leaf.ts';
import { CryptoError } from '../lib/crypto-error.ts';
import { createKeyPair, privateKeyToPem, signingAlgorithm } from './keys.ts';
import * as x509 from './x509.ts';

/** A request with a P-256 key has less than 1 KiB; far larger ones are refused before parsing. Characters. */
const longestRequest = 16_384;

/** For people only: clients compare the alternative names. */
const serverCommonName = 'berth-gateway';

/**
 * Creates a key pair and a PKCS#10 request (RFC 2986) for it, so that a gateway's private key never leaves its
 * process.
 * @throws CryptoError if the common name is empty or too long.
 */
export async function createServerRequest(
  commonName: string,
): Promise<{ requestPem: string; privateKeyPem: string }> {
  const keys = await createKeyPair();
  const request = await x509.Pkcs10CertificateRequestGenerator.create(
    { name: subjectOf(commonName), keys, signingAlgorithm },
    webcrypto,
  );
  return { requestPem: toPem(request), privateKeyPem: await privateKeyToPem(keys.privateKey) };
}

/**
 * Signs a certificate that is valid for TLS servers only. Only the public key is taken from the request; names,
 * extensions and validity come from `grant`.
 * @param grant.hosts DNS names and IP addresses that clients connect to; at least one.
 * @returns the certificate, PEM.
 * @throws CryptoError if the request is malformed or not signed by its own key, or the grant is invalid.
 */
export async function signServerRequest(
  ca: CertificateAuthority,
  requestPem: string,
  grant: { hosts: readonly string[]; notAfter: Date },
): Promise<string> {
  if (grant.hosts.length === 0) {
    throw new CryptoError('hosts is empty: name at least one DNS name or IP address');
  }
  const alternativeNames = grant.hosts.map(alternativeName);
  const request = parseRequest(requestPem);
  if (!(await request.verify(webcrypto).catch(() => false))) {
    throw new CryptoError("the request's signature was not made by the key in it");
  }
  const certificate = await signLeaf(ca, {
    commonName: serverCommonName,
    serial: createSerial(),
    notAfter: grant.notAfter,
    publicKey: request.publicKey,
    usage: x509.ExtendedKeyUsage.serverAuth,
    alternativeNames,
  });
  return toPem(certificate);
}

function parseRequest(pem: string): x509.Pkcs10CertificateRequest {
  if (pem.length > longestRequest) {
    throw new CryptoError(`the request has ${pem.length} characters: at most ${longestRequest} are allowed`);
  }
  let request: x509.Pkcs10CertificateRequest;
  try {
    request = new x509.Pkcs10CertificateRequest(pem);
  } catch (cause) {
    throw new CryptoError('the request is not a PKCS#10 certificate request in PEM form', { cause });
  }
  const algorithm = request.publicKey.algorithm as Partial<EcKeyAlgorithm>;
  if (algorithm.name !== 'ECDSA' || algorithm.namedCurve !== 'P-256') {
    throw new CryptoError("the request's key is not a P-256 key");
  }
  return request;
}

type EcKeyAlgorithm = webcrypto.EcKeyAlgorithm;

function alternativeName(host: string): x509.JsonGeneralName {
  if (isIP(host) !== 0) return { type: 'ip', value: host };
  const label = '[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?';
  if (host.length > 253 || !new RegExp(`^${label}(\\.${label})*$`).test(host)) {
    throw new CryptoError(
      `hosts: ${JSON.stringify(host.slice(0, 100))} is neither a DNS name nor an IP address`,
    );
  }
  return { type: 'dns', value: host };
}
