import type { ImageSuite } from '../core/hypervisor/images.ts';
import { type Environment, textOf } from './env.ts';
import { conflicts } from './setting-conflicts.ts';
import type { Setting } from './setting.ts';
import { settingTable, type SettingValues } from './setting-table.ts';

/** Everything that an operator can set, validated and frozen. Secrets are in files, and not in here. */
export interface Settings {
  readonly stateDirectory: string;
  readonly hypervisor: 'qemu' | 'simulated';
  /** Name or address at which tenants reach the gateway and the published ports. */
  readonly externalHost: string;
  /** Further names and addresses in the gateway's certificate. */
  readonly gatewayNames: readonly string[];
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
  /** File with the CAs, PEM, one of which must have signed the client certificates of the OSB listener. */
  readonly tlsClientAuthoritiesFile: string | undefined;
  /** Available memory of the node that is not given to hosts, in MiB. */
  readonly memoryReserveMib: number;
  /** How many times the memory beyond the reserve may be promised to hosts. */
  readonly memoryOvercommit: number;
  /** Idle time before a host is paused, and paused time before it is suspended. Seconds. */
  readonly idleAfterSeconds: number;
  readonly suspendAfterSeconds: number;
  readonly catalogFile: string | undefined;
  readonly brokerUsername: string | undefined;
  readonly brokerPasswordFile: string | undefined;
  readonly masterKeyFile: string | undefined;
  /** File with the connection string of Postgres; undefined: the embedded one. */
  readonly databaseUrlFile: string | undefined;
  /** The same as text: visible to everyone who can see this process's environment. */
  readonly databaseUrl: string | undefined;
  /** Files with the connection strings of the database roles, if the operator has created these. */
  readonly processDatabaseUrlFiles: Readonly<Record<'api' | 'gateway' | 'worker', string | undefined>>;
  /** First and last port that hosts may publish. */
  readonly publishedPorts: { readonly first: number; readonly last: number };
  /** IPv4 network of hosts' addresses on this node. */
  readonly hostNetwork: string;
  /** First of the user ids of api, gateway and hosts. */
  readonly uidBase: number;
  /** Name servers of the guests, reached through their own network namespace. */
  readonly dnsServers: readonly string[];
  /** IPv4 networks (CIDR) that no guest may reach. */
  readonly denyNetworks: readonly string[];
  /** Debian release of the guest image. */
  readonly imageSuite: ImageSuite;
  /** What a host can grow to while it runs: no plan may have more CPUs or memory. */
  readonly largestHost: { readonly vcpus: number; readonly memoryMib: number; readonly diskGib: number };
  /** What hosts of one template share in memory. */
  readonly pageSharing: 'template' | 'none';
  /** What happens to a host with drift. */
  readonly integrityPolicy: 'report' | 'quarantine';
  /** Interval between two integrity checks of a host, in seconds. */
  readonly integrityEverySeconds: number;
  /** Limits of one host on shared resources. */
  readonly hostLimits: {
    readonly connections: number;
    readonly bandwidthMbit: number;
    /** Of its disk: `iops` are requests per second. */
    readonly disk: { readonly mibPerSecond: number; readonly iops: number };
  };
  /** Concurrent connections through one gateway process: of all, and of one tenant, host, binding. */
  readonly gatewayConnections: number;
  readonly gatewayTenantConnections: number;
  readonly gatewayHostConnections: number;
  readonly gatewayBindingConnections: number;
  /** Free space of the file system with the hosts that they never get, in MiB; 0: none. */
  readonly diskReserveMib: number;
  /** How many times the disk space beyond the reserve may be promised to hosts. */
  readonly diskOvercommit: number;
  /** How long ports and addresses of a deleted host are not given to another tenant, in seconds. */
  readonly slotRestSeconds: number;
  /** After this time an orphan that no tenant has used is destroyed, in seconds. */
  readonly orphanGraceSeconds: number;
  /** Retention of the audit trail, in days. */
  readonly auditDays: number;
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error';
}

/** Settings are invalid. The message names each setting and the remedy. */
export class SettingsError extends Error {
  override readonly name = 'SettingsError';
}

/**
 * Reads the settings from the environment. An empty value is the same as none.
 * @throws SettingsError that names every invalid setting, not only the first.
 */
export function readSettings(environment: Environment = process.env): Settings {
  const problems: string[] = [];
  const values = Object.fromEntries(
    Object.entries<Setting<unknown>>(settingTable).map(([key, setting]) => [
      key,
      readSetting(setting, environment, problems),
    ]),
  ) as SettingValues;
  if (environment['BERTH_BROKER_PASSWORD'] !== undefined) {
    problems.push(
      'BERTH_BROKER_PASSWORD is set: a password in the environment can be read by others; write it to a file and name that in BERTH_BROKER_PASSWORD_FILE',
    );
  }
  problems.push(...conflicts(values));
  if (problems.length > 0) {
    throw new SettingsError(`The settings can't be used:\n  - ${problems.join('\n  - ')}`);
  }
  const { apiDatabaseUrlFile, gatewayDatabaseUrlFile, workerDatabaseUrlFile, ...others } = values;
  const { hostConnections, hostBandwidthMbit, hostDiskMibPerSecond, hostDiskIops, ...sized } = others;
  const { largestHostVcpus, largestHostMemoryMib, largestHostDiskGib, ...plain } = sized;
  return Object.freeze({
    ...plain,
    processDatabaseUrlFiles: {
      api: apiDatabaseUrlFile,
      gateway: gatewayDatabaseUrlFile,
      worker: workerDatabaseUrlFile,
    },
    largestHost: { vcpus: largestHostVcpus, memoryMib: largestHostMemoryMib, diskGib: largestHostDiskGib },
    hostLimits: {
      connections: hostConnections,
      bandwidthMbit: hostBandwidthMbit,
      disk: { mibPerSecond: hostDiskMibPerSecond, iops: hostDiskIops },
    },
  });
}

/** An invalid value is added to `problems`, and its default returned. */
function readSetting<T>(setting: Setting<T>, environment: Environment, problems: string[]): T {
  const { name, type } = setting;
  const text = textOf(environment, name);
  if (text === undefined) return setting.fallback();
  const value = type.parse(text);
  if (value !== undefined) return value;
  problems.push(`${name} is ${JSON.stringify(text.slice(0, 100))}: it must be ${type.expected}`);
  return setting.fallback();
}
