import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { type Settings, SettingsError } from './settings.ts';

/** What the OSB listener shows, and whom it lets in; PEM. */
export interface ListenerTls {
  readonly cert: string;
  readonly key: string;
  /** Undefined: clients need no certificate. */
  readonly clientCas: string | undefined;
}

/**
 * Certificate and key of the OSB listener, checked, so that what is wrong is known at the start and not at the
 * first handshake; undefined where none are set, and it speaks plain HTTP.
 * @throws SettingsError which names the setting. What a key's file holds is never in it.
 */
export async function listenerTls(settings: Settings): Promise<ListenerTls | undefined> {
  const { tlsCertificateFile, tlsKeyFile, tlsClientAuthoritiesFile } = settings;
  if (tlsCertificateFile === undefined || tlsKeyFile === undefined) return undefined;
  const cert = await readFile(tlsCertificateFile, 'utf8');
  const [own] = certificates(cert, 'BERTH_TLS_CERT_FILE', tlsCertificateFile);
  const key = await readFile(tlsKeyFile, 'utf8');
  if (own?.checkPrivateKey(privateKey(key, tlsKeyFile)) !== true) {
    throw new SettingsError(
      `BERTH_TLS_KEY_FILE: ${tlsKeyFile} does not hold the key of the first certificate in BERTH_TLS_CERT_FILE (${tlsCertificateFile}): the server's own certificate stands first there, those that vouch for it follow.`,
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
      `${setting}: ${tlsClientAuthoritiesFile} holds a certificate (${JSON.stringify(notOne.subject)}) that may not sign others: list authorities there, not clients.`,
    );
  }
  return { cert, key, clientCas };
}

function certificates(text: string, setting: string, file: string): X509Certificate[] {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  try {
    if (blocks.length > 0) return blocks.map((block) => new X509Certificate(block));
  } catch {
    // Told below: what OpenSSL says of it helps nobody.
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
