import { imageSuites } from '../core/hypervisor/images.ts';
import { nodeAddress, nodeNameServers } from './defaults.ts';
import * as env from './env.ts';
import { limitSettings } from './limit-settings.ts';
import { computed, literal, optional } from './setting.ts';

const postgresUrl = env.matching(/^postgres(ql)?:\/\//, 'a URL that begins with postgresql://');
const userName = env.matching(/^[^:\s]{1,255}$/, 'up to 255 characters, without colons and spaces');

/** Every setting, in the order of the documentation. */
export const settingTable = {
  stateDirectory: literal(
    'BERTH_STATE_DIR',
    env.absolutePath,
    '/var/lib/berth',
    "folder for everything that Berth stores; hosts' users must be able to enter it and the folders above",
  ),
  hypervisor: literal(
    'BERTH_HYPERVISOR',
    env.oneOf('qemu', 'simulated'),
    'qemu',
    '`qemu`, or `simulated`: no VMs, for tests and a first look',
  ),
  externalHost: computed(
    'BERTH_EXTERNAL_HOST',
    env.hostName,
    nodeAddress,
    "the node's first IPv4 address",
    "name or address at which tenants reach the gateway and published ports; part of bindings and of the gateway's certificate",
  ),
  gatewayNames: computed(
    'BERTH_GATEWAY_NAMES',
    env.hostNames,
    () => [],
    'none',
    'further DNS names and IP addresses at which clients reach the gateway, such as those of a tunnel, an alias or a load balancer, separated by commas; added to its certificate, which gateways renew within seconds when an api starts with other names',
  ),
  listenAddress: literal(
    'BERTH_LISTEN_ADDRESS',
    env.ipAddress,
    '0.0.0.0',
    'address that the OSB API and the gateway listen on',
  ),
  port: literal('BERTH_PORT', env.port, '8080', 'port of the OSB API'),
  gatewayPort: literal('BERTH_GATEWAY_PORT', env.port, '2376', 'port of the gateway'),
  mgmtAddress: literal(
    'BERTH_MGMT_ADDRESS',
    env.ipAddress,
    '127.0.0.1',
    'address that the management API listens on',
  ),
  mgmtPort: literal('BERTH_MGMT_PORT', env.port, '8081', 'port of the management API'),
  // Every answer comes within 30 s (docs/osb.md 7).
  syncWaitMs: literal(
    'BERTH_SYNC_WAIT_MS',
    env.integer('a number of milliseconds', 0, 25_000),
    '2500',
    'how long a request waits for its operation before it is answered with 202, in milliseconds; with 0, requests that need an operation (creates, deletes, most updates) are always answered with 202',
  ),
  ratePerSecond: literal(
    'BERTH_RATE_PER_SECOND',
    env.integer('a number of requests a second', 1, 1_000_000),
    '5000',
    "requests per second that each platform may send to one api process, one second's worth at once; further ones are answered with 429",
  ),
  tlsCertificateFile: optional(
    'BERTH_TLS_CERT_FILE',
    env.readableFile,
    'plain HTTP',
    "PEM: the OSB listener's certificate, then its chain; if set, the OSB API speaks HTTPS only",
  ),
  tlsKeyFile: optional(
    'BERTH_TLS_KEY_FILE',
    env.readableFile,
    'none',
    'PEM: the private key of that certificate, without a passphrase; set both or none',
  ),
  tlsClientAuthoritiesFile: optional(
    'BERTH_TLS_CLIENT_CA_FILE',
    env.readableFile,
    'none',
    'PEM: CAs, one of which must have signed the certificate that clients of the OSB API present in addition to their password',
  ),
  memoryReserveMib: literal(
    'BERTH_MEMORY_RESERVE_MIB',
    env.integer('a number of MiB', 0, 16 * 1024 * 1024),
    '1024',
    'available memory of the node (`MemAvailable`), in MiB, that is not given to hosts: if nothing else is left, the pool shrinks, and creates, larger plans and wakes of suspended hosts are refused',
  ),
  memoryOvercommit: literal(
    'BERTH_MEMORY_OVERCOMMIT',
    env.factor,
    '4',
    "how many times the memory beyond the reserve may be promised to hosts: most of a host's memory is shared with its template or never touched",
  ),
  idleAfterSeconds: literal(
    'BERTH_IDLE_AFTER_SECONDS',
    env.seconds,
    '300',
    'a host without connections, packets and running containers for this long is paused, unless its plan says `idle: run`; in seconds',
  ),
  suspendAfterSeconds: literal(
    'BERTH_SUSPEND_AFTER_SECONDS',
    env.seconds,
    '60',
    'a host that has been paused for this long is suspended: what its memory differs in from its template is written to disk, and all of it is freed; not if its plan says `idle: pause` or `idle: run`; in seconds',
  ),
  catalogFile: optional(
    'BERTH_CATALOG',
    env.readableFile,
    'the built-in catalog',
    'YAML file that replaces the built-in catalog, see below',
  ),
  brokerUsername: optional(
    'BERTH_BROKER_USERNAME',
    userName,
    '`berth`',
    "the platform's user name; set it together with the next one",
  ),
  brokerPasswordFile: optional(
    'BERTH_BROKER_PASSWORD_FILE',
    env.readableFile,
    'generated',
    "file with the platform's password, and on a second line the former one while it is rotated",
  ),
  masterKeyFile: optional(
    'BERTH_MASTER_KEY_FILE',
    env.readableFile,
    '`master.key` in the state directory, generated',
    'file with 32 bytes in base64 or hexadecimal; during a rotation two such lines',
  ),
  databaseUrlFile: optional(
    'DATABASE_URL_FILE',
    env.readableFile,
    'the embedded Postgres',
    'file with a URL that begins with `postgresql://`',
  ),
  databaseUrl: optional(
    'DATABASE_URL',
    postgresUrl,
    'the embedded Postgres',
    'the same as text; everyone who can see the environment sees the password, so prefer the file',
  ),
  apiDatabaseUrlFile: optional(
    'BERTH_API_DATABASE_URL_FILE',
    env.readableFile,
    'made by `npm start`',
    "file with the URL of the api's own database role; set all three or none",
  ),
  gatewayDatabaseUrlFile: optional(
    'BERTH_GATEWAY_DATABASE_URL_FILE',
    env.readableFile,
    'made by `npm start`',
    "file with the URL of the gateway's own database role",
  ),
  workerDatabaseUrlFile: optional(
    'BERTH_WORKER_DATABASE_URL_FILE',
    env.readableFile,
    'made by `npm start`',
    "file with the URL of the worker's own database role",
  ),
  imageSuite: literal(
    'BERTH_IMAGE_SUITE',
    env.oneOf(...imageSuites),
    imageSuites[0],
    "Debian release of the guest image: `trixie` (13) with Docker 26.1, or `bookworm` (12) with Docker 20.10, which has reached its end of life; existing hosts change at the tenant's next upgrade",
  ),
  publishedPorts: literal(
    'BERTH_PUBLISHED_PORTS',
    env.portRange,
    '20000-29999',
    'ports that hosts may publish; each host has a block of at least 20',
  ),
  hostNetwork: literal(
    'BERTH_HOST_NETWORK',
    env.hostNetwork,
    '10.209.0.0/16',
    "IPv4 network, /8 to /24, for hosts' addresses on this node; two per host",
  ),
  uidBase: literal(
    'BERTH_UID_BASE',
    env.integer('a number', 1000, 2_000_000_000, ': the first of a range of user ids that nothing else uses'),
    '300000',
    'first of the user ids of api, gateway (+ 1) and hosts (from + 16)',
  ),
  dnsServers: computed(
    'BERTH_DNS_SERVERS',
    env.nameServers,
    () => nodeNameServers(),
    "the node's name servers, those behind a local stub included",
    "IPv4 addresses, separated by commas, or `none`; guests' name queries go to the first, unless their egress is `none`",
  ),
  denyNetworks: computed(
    'BERTH_DENY_NETWORKS',
    env.networkList,
    () => [],
    'none',
    "IPv4 networks (CIDR), separated by commas, that no guest may reach, even if its plan allows them: your own public networks, the external address of a NAT, other installations' networks",
  ),
  auditDays: literal(
    'BERTH_AUDIT_DAYS',
    env.integer('a number of days', 30, 36_500),
    '400',
    'retention of the audit trail, 30 to 36500 days',
  ),
  logLevel: literal(
    'BERTH_LOG_LEVEL',
    env.oneOf('info', 'debug', 'warn', 'error'),
    'info',
    '`debug`, `info`, `warn` or `error`; JSON lines on standard output',
  ),
  integrityPolicy: literal(
    'BERTH_INTEGRITY_POLICY',
    env.oneOf('report', 'quarantine'),
    'report',
    'what happens to a host with drift: `report`, or `quarantine`, which also cuts it from the gateway and from every network',
  ),
  integrityEverySeconds: literal(
    'BERTH_INTEGRITY_SECONDS',
    env.integer('a number of seconds', 5, 86_400),
    '300',
    'every host is compared with its manifest at this interval, in seconds',
  ),
  largestHostVcpus: literal(
    'BERTH_LARGEST_HOST_VCPUS',
    env.integer('a number of CPUs', 1, 64),
    '16',
    'CPUs that a host can grow to while it runs; no plan may have more. If it is changed, the template is made again, and existing hosts follow when they are restarted',
  ),
  largestHostMemoryMib: literal(
    'BERTH_LARGEST_HOST_MEMORY_MIB',
    env.integer('a number of MiB', 768, 1_048_576),
    '32768',
    'memory in MiB that a host can grow to while it runs; no plan may have more. Room that is not used costs a host some 30 KiB for each GiB. If it is changed, the template is made again, and existing hosts follow when they are restarted',
  ),
  largestHostDiskGib: literal(
    'BERTH_LARGEST_HOST_DISK_GIB',
    env.integer('a number of GiB', 1, 16_384),
    '1024',
    'disk in GiB that a host can grow to while it runs; to a larger one it is restarted. Also the limit of any file that a compromised QEMU could write',
  ),
  pageSharing: literal(
    'BERTH_PAGE_SHARING',
    env.oneOf('template', 'none'),
    'template',
    '`template`: hosts share the pages of their template that they have not written to, and with them the side channels of shared pages; `none`: each has its own copy, for more memory and slower creates',
  ),
  ...limitSettings,
} as const;

export type SettingValues = {
  readonly [Key in keyof typeof settingTable]: ReturnType<(typeof settingTable)[Key]['fallback']>;
};
