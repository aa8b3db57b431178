import type { Express } from 'express';
import type { BasicCredentials } from './auth.ts';
import { listen } from './listen.ts';

/**
 * Has the app answer one request with a body, which it refuses, on a port that nobody knows. Libraries load parts
 * of themselves when they are first used; afterwards nothing is loaded any more, and root's rights can go.
 */
export async function warmUp(app: Express, credentials: BasicCredentials): Promise<void> {
  const listener = await listen(app, { host: '127.0.0.1', port: 0, setting: '' });
  try {
    const response = await fetch(`http://127.0.0.1:${listener.port}/v2/service_instances/rehearsal`, {
      method: 'PUT',
      headers: {
        Authorization: `Basic ${Buffer.from(`${credentials.username}:${credentials.password}`).toString('base64')}`,
        'X-Broker-API-Version': '2.17',
        'Content-Type': 'application/json',
        Connection: 'close',
      },
      body: '{"service_id":"none"}',
    });
    await response.text();
  } finally {
    await listener.stop();
  }
}
