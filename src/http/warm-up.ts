import type { Express } from 'express';
import type { BasicCredentials } from './auth.ts';
import { listen } from './listen.ts';

/**
 * Sends the app one request with a body, which it refuses, on a temporary port. Libraries load some of their files
 * on first use; after this the process can drop root's privileges.
 */
export async function warmUp(app: Express, credentials: BasicCredentials): Promise<void> {
  const listener = await listen(app, { host: '127.0.0.1', port: 0, setting: '' });
  try {
    const response = await fetch(`http://127.0.0.1:${listener.port}/v2/service_instances/warm-up`, {
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
