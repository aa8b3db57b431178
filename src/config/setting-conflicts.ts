import { enginePort } from '../core/hypervisor/network.ts';
import type { SettingValues } from './setting-table.ts';

/** Problems of settings that are valid one by one but not together, each with its remedy. */
export function conflicts(values: SettingValues): readonly string[] {
  const problems: string[] = [];
  if (values.databaseUrl !== undefined && values.databaseUrlFile !== undefined) {
    problems.push('DATABASE_URL and DATABASE_URL_FILE are both set: unset one of them');
  }
  if ((values.brokerUsername === undefined) !== (values.brokerPasswordFile === undefined)) {
    problems.push('BERTH_BROKER_USERNAME and BERTH_BROKER_PASSWORD_FILE go together: set both, or none');
  }
  if ((values.tlsCertificateFile === undefined) !== (values.tlsKeyFile === undefined)) {
    problems.push('BERTH_TLS_CERT_FILE and BERTH_TLS_KEY_FILE go together: set both, or none');
  }
  if (values.tlsClientAuthoritiesFile !== undefined && values.tlsCertificateFile === undefined) {
    problems.push(
      'BERTH_TLS_CLIENT_CA_FILE is set, but clients present certificates over TLS only: set BERTH_TLS_CERT_FILE and BERTH_TLS_KEY_FILE as well, or unset it',
    );
  }
  return [...problems, ...portConflicts(values)];
}

function portConflicts(values: SettingValues): readonly string[] {
  const ports = [
    ['BERTH_PORT', values.port],
    ['BERTH_GATEWAY_PORT', values.gatewayPort],
    ['BERTH_MGMT_PORT', values.mgmtPort],
  ] as const;
  const { first, last } = values.publishedPorts;
  const reserved = [...ports, ['the port of every engine', enginePort]] as const;
  return [
    ...ports.flatMap(([name, value], index) =>
      ports
        .slice(index + 1)
        .filter(([, other]) => other === value)
        .map(([other]) => `${name} and ${other} are both ${value}: give them different ports`),
    ),
    ...reserved
      .filter(([, value]) => first <= value && value <= last)
      .map(
        ([name, value]) =>
          `BERTH_PUBLISHED_PORTS (${first}-${last}) contains ${value}, which is ${name}: change one of them`,
      ),
  ];
}
