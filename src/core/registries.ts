import { X509Certificate } from 'node:crypto';
import { refused } from './errors.ts';
import type { RegistrySettings } from './hypervisor/host-spec.ts';
import type { JsonObject } from './model/json.ts';

/** A host name or address, and a port up to 65535: the engine silently ignores anything else. */
const label = '[0-9A-Za-z]([0-9A-Za-z-]{0,61}[0-9A-Za-z])?';
const port = '([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])';
const host = `${label}(\\.${label}){0,126}(:${port})?`;

/** A registry as in an image name, `host` or `host:port`: the pattern of a JSON schema (draft 04). */
export const registryPattern = `^${host}$`;

/** The URL of a mirror, without a path: dockerd rejects a path and keeps its previous settings. */
export const registryUrlPattern = `^https?://${host}/?$`;

/** In characters; enough for several certificates in PEM. */
export const longestCertificate = 16_384;

/**
 * The registry settings in parameters that match the plan's schema.
 * @throws RefusedError (400) if a certificate of a CA can't be parsed.
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

/** The certificates in a text, without anything else in it: only PEM is sent to the guest. */
function certificatesIn(text: string, field: string): string {
  if (text.includes('PRIVATE KEY')) {
    throw refused.badRequest(
      `${field} contains a private key: send certificates only, and replace that key.`,
    );
  }
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  try {
    if (blocks.length === 0) throw new Error('no certificate');
    return blocks.map((block) => new X509Certificate(block).toString()).join('');
  } catch {
    throw refused.badRequest(
      `${field} is not a certificate in PEM: it must begin with "-----BEGIN CERTIFICATE-----" and be complete, with line ends as "\\n".`,
    );
  }
}
