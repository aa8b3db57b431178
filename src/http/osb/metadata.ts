import { osbTimestamp, portRange } from '../../core/credentials.ts';
import type { Host, Instance, JsonObject } from '../../core/model.ts';

/** An instance's labels and attributes (OSB 2.17, "Service Instance Metadata"): strings only. */
export function toMetadata(instance: Instance, host: Host | undefined): JsonObject {
  const ports = host === undefined ? '' : portRange(host.publishedPorts);
  return {
    labels: {},
    attributes: {
      state: instance.state,
      ...(host !== undefined && { plan: host.planName }),
      ...(ports !== '' && { published_ports: ports }),
      ...(instance.expiresAt !== undefined && { expires_at: osbTimestamp(instance.expiresAt) }),
    },
  };
}
