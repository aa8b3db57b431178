import * as env from './env.ts';
import { literal } from './setting.ts';

/** Limits of one host, tenant or address on what all share. SECURITY.md, "Shared resources", lists them. */
export const limitSettings = {
  hostConnections: literal(
    'BERTH_HOST_CONNECTIONS',
    env.integer('a number of connections', 16, 1_000_000),
    '4096',
    'concurrent connections that a host may open, and as many that others may open to its published ports; further ones are dropped and counted',
  ),
  hostBandwidthMbit: literal(
    'BERTH_HOST_BANDWIDTH_MBIT',
    env.integer('a number of Mbit/s', 1, 100_000),
    '1000',
    'most that a host sends, and most that it receives, in Mbit/s',
  ),
  orphanGraceSeconds: literal(
    'BERTH_ORPHAN_GRACE_SECONDS',
    env.integer('a number of seconds', 0, 2_592_000),
    '3600',
    'a host that exists, that Postgres has never heard of and that no tenant has used is destroyed after this time, in seconds',
  ),
  hostDiskMibPerSecond: literal(
    'BERTH_HOST_DISK_MIB_PER_SECOND',
    env.integer('a number of MiB per second', 1, 100_000),
    '200',
    'most that a host reads and writes on its disk, together, in MiB/s; twice as much for up to 10 s',
  ),
  hostDiskIops: literal(
    'BERTH_HOST_DISK_IOPS',
    env.integer('a number of requests per second', 50, 1_000_000),
    '5000',
    'most requests per second of a host to its disk; twice as many for up to 10 s',
  ),
  diskReserveMib: literal(
    'BERTH_DISK_RESERVE_MIB',
    env.integer('a number of MiB', 0, 1024 * 1024 * 1024),
    '2048',
    'free space of the file system with the hosts, in MiB, that hosts never get: if less is left, no host is created and the hosts that write most are halted until there is room; 0 turns this off',
  ),
  diskOvercommit: literal(
    'BERTH_DISK_OVERCOMMIT',
    env.factor,
    '4',
    'how many times the disk space beyond the reserve may be promised to hosts: a disk takes space only as its guest writes',
  ),
  slotRestSeconds: literal(
    'BERTH_SLOT_REST_SECONDS',
    env.integer('a number of seconds', 0, 86_400),
    '300',
    "time after the deletion of a host in which its published ports and its addresses are not given to another tenant's host, in seconds",
  ),
  gatewayConnections: literal(
    'BERTH_GATEWAY_CONNECTIONS',
    env.integer('a number of connections', 16, 1_000_000),
    '10000',
    'concurrent connections through one gateway process; a tenant gets at most half of what others leave',
  ),
  gatewayTenantConnections: literal(
    'BERTH_GATEWAY_TENANT_CONNECTIONS',
    env.integer('a number of connections', 16, 1_000_000),
    '4000',
    'concurrent connections of one tenant through one gateway process; further ones are answered with 503',
  ),
  gatewayHostConnections: literal(
    'BERTH_GATEWAY_HOST_CONNECTIONS',
    env.integer('a number of connections', 16, 1_000_000),
    '2000',
    'the same for one host',
  ),
  gatewayBindingConnections: literal(
    'BERTH_GATEWAY_BINDING_CONNECTIONS',
    env.integer('a number of connections', 16, 1_000_000),
    '1000',
    'the same for one binding',
  ),
} as const;
