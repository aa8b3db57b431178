import { X509Certificate } from 'node:crypto';
import { refused } from './errors.ts';
import type { RegistrySettings } from './hypervisor/host-spec.ts';
import type { JsonObject } from './model/json.ts';

/** Labels of a name, or an address, and a port up to 65535: the engine drops anything else without a word. */
const label = '[0-9A-Za-z]([0-9A-Za-z-]{0,61}[0-9A-Za-z])?';
const port = '([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])';
const host = `${label}(\\.${label}){0,126}(:${port})?`;

/** A registry as image names have it, `host` or `host:port`, as a JSON schema's pattern (draft 04). */
export const registryPattern = `^${host}$`;

/** The URL of a mirror; dockerd takes none with a path, and goes on with its former settings where one has. */
export const registryUrlPattern = `^https?://${host}/?$`;

/** In characters: a few certificates in PEM. */
export const longestCertificate = 16_384;

/**
 * What parameters, which have passed the plan's schema, tell the engine of registries.
 * @throws RefusedError (400) where an authority's certificate can't be read.
 */
export function registriesOf(parameters: JsonObject): RegistrySettings {
  const authorities = (parameters['registry_authorities'] ?? []) as {
    registry: string;
    certificate: string;
  }[];
  return {
    mirrors: (parameters['registry_mirrors'] ?? []) as string[],
    insecure: (parameters['insecure_registries'] ?? []) as string[],
    authorities: authorities.map(({ registry, certificate }, index) => ({
      host: registry,
      certificate: certificatesIn(certificate, `parameters/registry_authorities/${index}/certificate`),
    })),
  };
}

/** The certificates of a text, and nothing else that is in it: what a guest is sent is lines of PEM. */
function certificatesIn(text: string, where: string): string {
  if (text.includes('PRIVATE KEY')) {
    throw refused.badRequest(`${where} holds a private key: send certificates only, and replace that key.`);
  }
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  try {
    if (blocks.length === 0) throw new Error('there is none');
    return blocks.map((block) => new X509Certificate(block).toString()).join('');
  } catch {
    throw refused.badRequest(
      `${where} is no certificate in PEM: it begins with "-----BEGIN CERTIFICATE-----" and must be whole, its line ends as "\\n".`,
    );
  }
}
