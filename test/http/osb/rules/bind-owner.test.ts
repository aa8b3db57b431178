import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { type OsbBroker, makeOsbBroker } from '../../../support/osb-broker.ts';

let on: OsbBroker;
let id: string;
beforeAll(async () => {
  on = await makeOsbBroker(inject('postgres'));
  id = await on.newInstance();
});
afterAll(() => on.stop());

const liveSerials = () =>
  on.broker.database('bindings').where({ state: 'live' }).orderBy('serial').pluck('serial');
const inSpace = (space: string, context?: object) => ({
  bind_resource: { app_guid: 'app', space_guid: space },
  ...(context && { context }),
});

it('8q: binds an app in the space of the instance', async () => {
  const context = { platform: 'cloudfoundry', organization_guid: 'org-1', space_guid: 'space-1' };
  expect((await on.bind(id, randomUUID(), inSpace('space-1', context))).status).toBe(201);
});

it('8q: binds an app in another space of the org that has had an instance', async () => {
  await on.newInstance({ space_guid: 'space-of-org-1' });
  expect((await on.bind(id, randomUUID(), inSpace('space-of-org-1'))).status).toBe(201);
});

// Each fails without `requireSameOwner`: 201, and the other org had credentials of the host.
it.each([
  ['in a space of another org', inSpace('space-of-org-2'), /belongs to another org/],
  ['in a space that was never seen', inSpace('space-unseen'), /can't tell whether the app's space/],
  ['in a context of another org', { context: { organization_guid: 'org-2' } }, /^context: /],
])('8q: refuses to bind an app %s, and issues nothing', async (_, change, message) => {
  await on.newInstance({ organization_guid: 'org-2', space_guid: 'space-of-org-2' });
  const before = await liveSerials();
  const answer = await on.bind(id, randomUUID(), change);
  expect(answer.status).toBe(422);
  expect(answer.body['description']).toMatch(message);
  expect(await liveSerials()).toEqual(before);
});
