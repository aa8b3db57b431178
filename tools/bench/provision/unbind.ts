import { randomUUID } from 'node:crypto';
import type { Platform } from '../../lib/platform.ts';
import { openRequest, ping } from '../lib/engine-requests.ts';

/** From the DELETE of a binding until its open stream is closed and a new connection is refused. */
export async function unbind(platform: Platform, instanceId: string): Promise<number> {
  const bindingId = `bench-${randomUUID()}`;
  const credentials = await platform.bind(instanceId, bindingId, 'template');
  const stream = openRequest(credentials, '/events');
  const cut = new Promise<void>((resolve, reject) => {
    stream.on('error', () => {
      resolve();
    });
    stream.on('response', (response) => {
      if (response.statusCode !== 200) reject(new Error('the stream was refused while it was bound'));
      response.resume().on('close', () => {
        resolve();
      });
    });
  });
  const isOpen = new Promise<void>((resolve) => {
    stream.on('response', () => {
      resolve();
    });
  });
  stream.end();
  await isOpen;
  const begun = performance.now();
  await platform.unbind(instanceId, bindingId);
  if (await ping(credentials)) throw new Error('a connection was accepted after the unbind had answered');
  await cut;
  return performance.now() - begun;
}
