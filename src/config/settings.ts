import { readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import path from 'node:path';
import { enginePort } from '../core/hypervisor/network.ts';

/** Everything that an operator can set, checked and frozen. Secrets are in files, and not in here. */
export interface Settings {
  readonly stateDirectory: string;
  readonly hypervisor: 'qemu' | 'simulated';
  /** Name or address at which tenants reach the gateway and the published ports. */
  readonly externalHost: string;
  /** Address that the OSB API and the gateway listen on. */
  readonly listenAddress: string;
  readonly port: number;
  readonly gatewayPort: number;
  readonly mgmtAddress: string;
  readonly mgmtPort: number;
  /** How long a request waits for its operation, in milliseconds; 0 answers 202 at once. */
  readonly syncWaitMs: number;
  /** Requests a second that each platform may make of one api process. */
  readonly ratePerSecond: number;
  /** Files with the OSB listener's certificate (its chain after it) and key, PEM; undefined: plain HTTP. */
  readonly tlsCertificateFile: string | undefined;
  readonly tlsKeyFile: string | undefined;
  /** File with the authorities, PEM, of which clients of the OSB listener must have a certificate. */
  readonly tlsClientAuthoritiesFile: string | undefined;
  /** The machine's memory that the pool leaves free, in MiB. */
  readonly memoryReserveMib: number;
  /** How many times the memory beyond the reserve may be promised to hosts. */
  readonly memoryOvercommit: number;
  /** How long nobody must have used a host before it is paused, and how long it is paused before it is suspended. Seconds. */
  readonly idleAfterSeconds: number;
  readonly suspendAfterSeconds: number;
  readonly catalogFile: string | undefined;
  readonly brokerUsername: string | undefined;
  readonly brokerPasswordFile: string | undefined;
  readonly masterKeyFile: string | undefined;
  /** File that holds the connection string of Postgres; undefined: the embedded one. */
  readonly databaseUrlFile: string | undefined;
  /** The same as text: readable by whoever can see this process' environment. */
  readonly databaseUrl: string | undefined;
  /** Files that hold the connection strings of the roles, where the operator has made these. */
  readonly processDatabaseUrlFiles: Readonly<Record<'api' | 'gateway' | 'worker', string | undefined>>;
  /** First and last port that hosts may publish. */
  readonly publishedPorts: { readonly first: number; readonly last: number };
  /** IPv4 network out of which hosts get their addresses on this machine. */
  readonly hostNetwork: string;
  /** First of the user ids that api, gateway and hosts run as. */
  readonly uidBase: number;
  /** What guests ask for names; reached through their own namespace. */
  readonly dnsServers: readonly string[];
  /** What hosts of one template share in memory. */
  readonly pageSharing: 'template' | 'none';
  /** What becomes of a host that is found altered. */
  readonly integrityPolicy: 'report' | 'quarantine';
  /** Every host is checked so often, in seconds. */
  readonly integrityEverySeconds: number;
  /** What one host may use of what all share. */
  readonly hostLimits: { readonly connections: number; readonly bandwidthMbit: number };
  /** How long rows of the audit trail are kept, in days. */
  readonly auditDays: number;
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error';
}

/** Settings can't be used. The message names each setting and the remedy. */
export class SettingsError extends Error {
  override readonly name = 'SettingsError';
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Reads the settings from the environment. An empty value is the same as none.
 * @throws SettingsError which names every setting that is wrong, not only the first.
 */
export function readSettings(environment: Environment = process.env): Settings {
  const problems: string[] = [];
  const text = (name: string) => {
    const value = environment[name]?.trim();
    return value === '' ? undefined : value;
  };
  const parse = <T>(name: string, fallback: T, read: (value: string) => T | undefined, wanted: string): T => {
    const value = text(name);
    if (value === undefined) return fallback;
    const parsed = read(value);
    if (parsed === undefined) {
      problems.push(`${name} is ${JSON.stringify(value.slice(0, 100))}: it must be ${wanted}`);
      return fallback;
    }
    return parsed;
  };
  const oneOf = <const T extends string>(name: string, allowed: readonly [T, ...T[]]): T =>
    parse<T>(
      name,
      allowed[0],
      (value) => allowed.find((one) => one === value),
      `one of: ${allowed.join(', ')}`,
    );
  const port = (name: string, fallback: number) =>
    parse(name, fallback, (value) => integer(value, 1, 65_535), 'a port from 1 to 65535');
  const file = (name: string) => {
    const value = text(name);
    if (value !== undefined && !readable(value)) {
      problems.push(`${name} names ${value}, which can't be read: create it, or unset ${name}`);
    }
    return value;
  };

  const settings: Settings = {
    stateDirectory: parse(
      'BERTH_STATE_DIR',
      '/var/lib/berth',
      (value) => (path.isAbsolute(value) ? path.normalize(value) : undefined),
      'an absolute path',
    ),
    hypervisor: oneOf('BERTH_HYPERVISOR', ['qemu', 'simulated']),
    externalHost: parse('BERTH_EXTERNAL_HOST', ownAddress(), hostName, 'a DNS name or an IP address'),
    listenAddress: parse('BERTH_LISTEN_ADDRESS', '0.0.0.0', ipAddress, 'an IP address'),
    port: port('BERTH_PORT', 8080),
    gatewayPort: port('BERTH_GATEWAY_PORT', 2376),
    mgmtAddress: parse('BERTH_MGMT_ADDRESS', '127.0.0.1', ipAddress, 'an IP address'),
    mgmtPort: port('BERTH_MGMT_PORT', 8081),
    syncWaitMs: parse(
      'BERTH_SYNC_WAIT_MS',
      2500,
      // Every answer comes within 30 s (docs/osb.md 7).
      (value) => integer(value, 0, 25_000),
      'a number of milliseconds from 0 to 25000',
    ),
    ratePerSecond: parse(
      'BERTH_RATE_PER_SECOND',
      5_000,
      (value) => integer(value, 1, 1_000_000),
      'a number of requests a second from 1 to 1000000',
    ),
    tlsCertificateFile: file('BERTH_TLS_CERT_FILE'),
    tlsKeyFile: file('BERTH_TLS_KEY_FILE'),
    tlsClientAuthoritiesFile: file('BERTH_TLS_CLIENT_CA_FILE'),
    memoryReserveMib: parse(
      'BERTH_MEMORY_RESERVE_MIB',
      1024,
      (value) => integer(value, 0, 16 * 1024 * 1024),
      'a number of MiB from 0 to 16777216',
    ),
    memoryOvercommit: parse(
      'BERTH_MEMORY_OVERCOMMIT',
      4,
      (value) => (/^\d{1,2}(\.\d)?$/.test(value) && Number(value) >= 1 ? Number(value) : undefined),
      'a number from 1 to 99, such as 4 or 2.5',
    ),
    idleAfterSeconds: parse(
      'BERTH_IDLE_AFTER_SECONDS',
      300,
      seconds,
      'a number of seconds from 1 to 31536000',
    ),
    suspendAfterSeconds: parse(
      'BERTH_SUSPEND_AFTER_SECONDS',
      3600,
      seconds,
      'a number of seconds from 1 to 31536000',
    ),
    catalogFile: file('BERTH_CATALOG'),
    brokerUsername: parse(
      'BERTH_BROKER_USERNAME',
      undefined,
      (value) => (/^[^:\s]{1,255}$/.test(value) ? value : undefined),
      'up to 255 characters, with neither a colon nor a space',
    ),
    brokerPasswordFile: file('BERTH_BROKER_PASSWORD_FILE'),
    masterKeyFile: file('BERTH_MASTER_KEY_FILE'),
    databaseUrlFile: file('DATABASE_URL_FILE'),
    databaseUrl: parse(
      'DATABASE_URL',
      undefined,
      (value) => (/^postgres(ql)?:\/\//.test(value) ? value : undefined),
      'a URL that begins with postgresql://',
    ),
    processDatabaseUrlFiles: {
      api: file('BERTH_API_DATABASE_URL_FILE'),
      gateway: file('BERTH_GATEWAY_DATABASE_URL_FILE'),
      worker: file('BERTH_WORKER_DATABASE_URL_FILE'),
    },
    publishedPorts: parse(
      'BERTH_PUBLISHED_PORTS',
      { first: 20_000, last: 29_999 },
      portRange,
      'a range of ports from 1024 on, such as 20000-29999',
    ),
    hostNetwork: parse(
      'BERTH_HOST_NETWORK',
      '10.209.0.0/16',
      network,
      'an IPv4 network of /8 to /24, such as 10.209.0.0/16',
    ),
    uidBase: parse(
      'BERTH_UID_BASE',
      300_000,
      (value) => integer(value, 1000, 2_000_000_000),
      'a number from 1000 to 2000000000: the first of a range of user ids that nothing else uses',
    ),
    dnsServers: parse(
      'BERTH_DNS_SERVERS',
      systemNameservers(),
      addressList,
      'IPv4 addresses, separated by commas',
    ),
    pageSharing: oneOf('BERTH_PAGE_SHARING', ['template', 'none']),
    integrityPolicy: oneOf('BERTH_INTEGRITY_POLICY', ['report', 'quarantine']),
    integrityEverySeconds: parse(
      'BERTH_INTEGRITY_SECONDS',
      300,
      (value) => integer(value, 5, 86_400),
      'a number of seconds from 5 to 86400',
    ),
    hostLimits: {
      connections: parse(
        'BERTH_HOST_CONNECTIONS',
        4096,
        (value) => integer(value, 16, 1_000_000),
        'a number of connections from 16 to 1000000',
      ),
      bandwidthMbit: parse(
        'BERTH_HOST_BANDWIDTH_MBIT',
        1000,
        (value) => integer(value, 1, 100_000),
        'a number of Mbit/s from 1 to 100000',
      ),
    },
    auditDays: parse(
      'BERTH_AUDIT_DAYS',
      400,
      (value) => integer(value, 30, 36_500),
      'a number of days from 30 to 36500',
    ),
    logLevel: oneOf('BERTH_LOG_LEVEL', ['info', 'debug', 'warn', 'error']),
  };
  if (environment['BERTH_BROKER_PASSWORD'] !== undefined) {
    problems.push(
      'BERTH_BROKER_PASSWORD is set: a password in the environment can be read by others; put it into a file and name that in BERTH_BROKER_PASSWORD_FILE',
    );
  }
  if (settings.databaseUrl !== undefined && settings.databaseUrlFile !== undefined) {
    problems.push('DATABASE_URL and DATABASE_URL_FILE are both set: unset one of them');
  }
  if ((settings.brokerUsername === undefined) !== (settings.brokerPasswordFile === undefined)) {
    problems.push('BERTH_BROKER_USERNAME and BERTH_BROKER_PASSWORD_FILE go together: set both, or none');
  }
  if ((settings.tlsCertificateFile === undefined) !== (settings.tlsKeyFile === undefined)) {
    problems.push('BERTH_TLS_CERT_FILE and BERTH_TLS_KEY_FILE go together: set both, or none');
  }
  if (settings.tlsClientAuthoritiesFile !== undefined && settings.tlsCertificateFile === undefined) {
    problems.push(
      'BERTH_TLS_CLIENT_CA_FILE is set, but clients show certificates over TLS only: set BERTH_TLS_CERT_FILE and BERTH_TLS_KEY_FILE as well, or unset it',
    );
  }
  problems.push(...clashes(settings));
  if (problems.length > 0)
    throw new SettingsError(`The settings can't be used:\n  - ${problems.join('\n  - ')}`);
  return Object.freeze(settings);
}

/**
 * What a role's process is started with: Berth's own settings, and nothing else that may be in our environment.
 * @param databaseUrlFile names the database as this role may use it, and takes the place of however it was
 * named to us, who own the tables.
 */
export function processEnvironment(databaseUrlFile: string): Record<string, string | undefined> {
  const own = Object.entries(process.env).filter(
    ([name]) => name.startsWith('BERTH_') && !name.endsWith('_DATABASE_URL_FILE'),
  );
  return { PATH: process.env['PATH'], ...Object.fromEntries(own), DATABASE_URL_FILE: databaseUrlFile };
}

function clashes(settings: Settings): string[] {
  const ports = [
    ['BERTH_PORT', settings.port],
    ['BERTH_GATEWAY_PORT', settings.gatewayPort],
    ['BERTH_MGMT_PORT', settings.mgmtPort],
  ] as const;
  const { first, last } = settings.publishedPorts;
  const taken = [...ports, ['the port of every engine', enginePort]] as const;
  return [
    ...ports.flatMap(([name, value], index) =>
      ports
        .slice(index + 1)
        .filter(([, other]) => other === value)
        .map(([other]) => `${name} and ${other} are both ${value}: they need ports of their own`),
    ),
    ...taken
      .filter(([, value]) => first <= value && value <= last)
      .map(
        ([name, value]) =>
          `BERTH_PUBLISHED_PORTS (${first}-${last}) gives ${value} to hosts, but it is ${name}: move one of them`,
      ),
  ];
}

function integer(value: string, least: number, most: number): number | undefined {
  const number = Number(value);
  return /^\d+$/.test(value) && number >= least && number <= most ? number : undefined;
}

const seconds = (value: string) => integer(value, 1, 31_536_000);

function readable(name: string): boolean {
  try {
    readFileSync(name);
    return true;
  } catch {
    return false;
  }
}

function portRange(value: string): { first: number; last: number } | undefined {
  const [, from = '', to = ''] = /^(\d+)-(\d+)$/.exec(value) ?? [];
  const first = integer(from, 1024, 65_535);
  const last = integer(to, 1024, 65_535);
  return first !== undefined && last !== undefined && first <= last ? { first, last } : undefined;
}

const octets = /^((25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(25[0-5]|2[0-4]\d|1?\d?\d)$/;

function ipAddress(value: string): string | undefined {
  return octets.test(value) || /^[0-9a-fA-F:]*:[0-9a-fA-F:.]*$/.test(value) ? value : undefined;
}

function hostName(value: string): string | undefined {
  const name = /^[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*$/;
  return ipAddress(value) ?? (value.length <= 253 && name.test(value) ? value : undefined);
}

function network(value: string): string | undefined {
  const [address = '', length = ''] = value.split('/');
  return octets.test(address) && integer(length, 8, 24) !== undefined ? value : undefined;
}

function addressList(value: string): string[] | undefined {
  const addresses = value.split(',').map((address) => address.trim());
  return addresses.every((address) => octets.test(address)) ? addresses : undefined;
}

/** The machine's own address, for a first look; a fleet has a name. */
function ownAddress(): string {
  const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return addresses.find(({ family, internal }) => family === 'IPv4' && !internal)?.address ?? '127.0.0.1';
}

/** The machine's own name servers; a stub on loopback can't be reached from a guest. */
function systemNameservers(): string[] {
  try {
    return [...readFileSync('/etc/resolv.conf', 'utf8').matchAll(/^nameserver\s+(\S+)/gm)]
      .map(([, address = '']) => address)
      .filter((address) => octets.test(address) && !address.startsWith('127.'));
  } catch {
    return [];
  }
}
