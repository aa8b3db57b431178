import { expect } from 'vitest';
import { get, type Harness } from './harness.ts';

/** The message that docker prints. */
export const messageOf = (answer: string) =>
  (JSON.parse(answer.slice(answer.indexOf('\r\n\r\n'))) as { message: string }).message;

/** A client with this certificate is refused with this answer, and counted under this reason. */
export async function expectRefused(
  harness: Harness,
  certificate: Parameters<Harness['connect']>[0],
  expected: { status: number; reason: string; message: RegExp },
): Promise<void> {
  const answer = await harness.connect(certificate).ask(get('/_ping'));
  expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${expected.status} `));
  expect(answer).toContain('\r\nServer: Berth\r\n');
  expect(messageOf(answer)).toMatch(expected.message);
  expect(harness.gateway.state().counters.refused).toMatchObject({ [expected.reason]: 1 });
}
