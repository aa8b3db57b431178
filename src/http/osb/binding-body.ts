import type { BindingView } from '../../core/broker/binding-view.ts';
import type { JsonObject } from '../../core/model/json.ts';
import { endpoints } from './endpoints.ts';
import { osbTimestamp } from './timestamp.ts';

/** A binding as the platform gets it (OSB 2.17, "Binding"). */
export function bindingBody(view: BindingView, withMetadata: boolean): JsonObject {
  const { credentials, address, publishedPorts, expiresAt, renewBefore } = view;
  if (!withMetadata) return { credentials };
  return {
    credentials,
    endpoints: endpoints(address, publishedPorts),
    metadata: { expires_at: osbTimestamp(expiresAt), renew_before: osbTimestamp(renewBefore) },
  };
}
