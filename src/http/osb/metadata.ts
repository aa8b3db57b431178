import type { Host } from '../../core/model/host.ts';
import type { Instance } from '../../core/model/instance.ts';
import type { JsonObject } from '../../core/model/json.ts';
import { osbTimestamp } from './timestamp.ts';
import { formatPortRange } from '../../lib/port-range.ts';

/** An instance's labels and attributes (OSB 2.17, "Service Instance Metadata"): strings only. */
export function toMetadata(instance: Instance, host: Host | undefined): JsonObject {
  const ports = host === undefined ? '' : formatPortRange(host.publishedPorts);
  return {
    labels: {},
    attributes: {
      state: instance.state,
      ...(host !== undefined && { plan: host.planName }),
      ...(ports !== '' && { published_ports: ports }),
      ...(host?.memoryLostAt !== undefined && { memory_lost_at: osbTimestamp(host.memoryLostAt) }),
      ...(instance.expiresAt !== undefined && { expires_at: osbTimestamp(instance.expiresAt) }),
    },
  };
}
