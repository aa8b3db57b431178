import { channels } from '../channels.ts';

/** Notifies gateways of each live binding of a host: they read the host's address and power state with it. */
export const notifyGatewaysSql = `
  SELECT pg_notify('${channels.bindings}', bindings.id::text)
  FROM bindings JOIN hosts USING (instance_id) WHERE hosts.id = ? AND bindings.state = 'live'`;
