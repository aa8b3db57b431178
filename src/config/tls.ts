import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { type Settings, SettingsError } from './settings.ts';

/** The OSB listener's certificate, key and trusted client CAs; PEM. */
export interface ListenerTls {
  readonly cert: string;
  readonly key: string;
  /** Undefined: clients need no certificate. */
  readonly clientCas: string | undefined;
}

/**
 * Certificate and key of the OSB listener, validated at the start instead of at the first handshake; undefined if none
 * are set: plain HTTP.
 * @throws SettingsError that names the setting, and never contains any content of the key file.
 */
export async function listenerTls(settings: Settings): Promise<ListenerTls | undefined> {
  const { tlsCertificateFile, tlsKeyFile, tlsClientAuthoritiesFile } = settings;
  if (tlsCertificateFile === undefined || tlsKeyFile === undefined) return undefined;
  const cert = await readFile(tlsCertificateFile, 'utf8');
  const [own] = certificates(cert, 'BERTH_TLS_CERT_FILE', tlsCertificateFile);
  const key = await readFile(tlsKeyFile, 'utf8');
  if (own?.checkPrivateKey(privateKey(key, tlsKeyFile)) !== true) {
    throw new SettingsError(
      `BERTH_TLS_KEY_FILE: ${tlsKeyFile} does not hold the key of the first certificate in BERTH_TLS_CERT_FILE (${tlsCertificateFile}): put the server's certificate first, followed by its chain.`,
    );
  }
  if (Date.parse(own.validTo) <= Date.now()) {
    throw new SettingsError(
      `BERTH_TLS_CERT_FILE: the certificate in ${tlsCertificateFile} expired on ${own.validTo}: put a valid one there.`,
    );
  }
  if (tlsClientAuthoritiesFile === undefined) return { cert, key, clientCas: undefined };
  const clientCas = await readFile(tlsClientAuthoritiesFile, 'utf8');
  const setting = 'BERTH_TLS_CLIENT_CA_FILE';
  const notOne = certificates(clientCas, setting, tlsClientAuthoritiesFile).find(({ ca }) => !ca);
  if (notOne !== undefined) {
    throw new SettingsError(
      `${setting}: ${tlsClientAuthoritiesFile} holds a certificate (${JSON.stringify(notOne.subject)}) that may not sign others: list CAs there, not clients.`,
    );
  }
  return { cert, key, clientCas };
}

function certificates(text: string, setting: string, file: string): X509Certificate[] {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  try {
    if (blocks.length > 0) return blocks.map((block) => new X509Certificate(block));
  } catch {
    // Reported below; OpenSSL's message does not help.
  }
  throw new SettingsError(`${setting}: ${file} does not hold certificates in PEM form.`);
}

function privateKey(text: string, file: string): KeyObject {
  try {
    return createPrivateKey(text);
  } catch {
    // The cause is left out on purpose: parsers quote their input.
    throw new SettingsError(
      `BERTH_TLS_KEY_FILE: ${file} does not hold a private key in PEM form without a passphrase.`,
    );
  }
}
