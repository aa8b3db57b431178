import { expect, it } from 'vitest';
import { forEachInstance } from '../../src/controllers/each-instance.ts';
import { createRecordingLogger } from '../support/logger.ts';

// Fails without the try: the expiry of all later instances waited for that of the broken one.
it('each instance: one that fails is logged and keeps no other from its turn', async () => {
  const { logger, lines } = createRecordingLogger();
  const done: string[] = [];
  await forEachInstance(['broken', 'sound'], { logger, failed: 'It failed' }, (id) => {
    if (id === 'broken') return Promise.reject(new Error('no'));
    done.push(id);
    return Promise.resolve();
  });
  expect(done).toEqual(['sound']);
  expect(lines).toMatchObject([{ instance: 'broken' }]);
});
