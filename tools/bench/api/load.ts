import type { Answer, Connection } from './client.ts';

/** Unexpected answers during the whole suite. */
export interface Tally {
  serverErrors: number;
  /** Refused because of the rate limit. */
  limited: number;
}

/** A request, and the status that it must have. */
export interface Ask {
  readonly method: string;
  readonly path: string;
  readonly body?: object;
  readonly expect: number;
}

/** Sends one request and waits for its answer; milliseconds. A 5xx or 429 is counted; any other unexpected status throws. */
export async function timed(connection: Connection, ask: Ask, tally: Tally): Promise<number> {
  const begun = performance.now();
  const answer = await connection.ask(ask.method, ask.path, ask.body);
  const ms = performance.now() - begun;
  if (answer.status === ask.expect) return ms;
  if (answer.status === 429) tally.limited += 1;
  else if (answer.status >= 500) tally.serverErrors += 1;
  else throw unexpected(ask, answer);
  return ms;
}

function unexpected(ask: Ask, answer: Answer): Error {
  return new Error(
    `${ask.method} ${ask.path} was answered ${answer.status}, not ${ask.expect}: ${answer.body.slice(0, 500)}`,
  );
}

/**
 * Each connection sends its next request as soon as it has an answer, until the time is over.
 * @returns expected answers per second, without failed and refused requests.
 */
export async function throughput(
  connections: readonly Connection[],
  next: () => Ask,
  seconds: number,
  tally: Tally,
): Promise<number> {
  const wrong = () => tally.serverErrors + tally.limited;
  const before = wrong();
  let answered = 0;
  const begun = performance.now();
  const until = begun + seconds * 1000;
  await Promise.all(
    connections.map(async (connection) => {
      while (performance.now() < until) {
        await timed(connection, next(), tally);
        answered += 1;
      }
    }),
  );
  return (answered - (wrong() - before)) / ((performance.now() - begun) / 1000);
}
