import { setTimeout as delay } from 'node:timers/promises';

export interface Answer {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
}

/** Asks one of several processes that serve the same, with credentials. */
export interface Asker {
  /** One request to one port, asked once. */
  readonly ask: (port: number, method: string, route: string, body?: object) => Promise<Answer>;
  /**
   * Asks again, another process maybe, until there is an answer to keep.
   * @throws Error where there was none in time.
   */
  readonly insist: (method: string, route: string, body?: object) => Promise<Answer>;
}

export interface AskerOptions {
  /** Picks the port for a request. */
  readonly choose: () => number;
  /** Within which every request must be answered, and every operation end, in milliseconds. */
  readonly patienceMs: number;
  /** Told of each answer that nobody may ever get, in words: what is asked again would hide it. */
  readonly complain: (violation: string) => void;
}

const retryEveryMs = 150;

export function createAsker(
  { username, password }: { readonly username: string; readonly password: string },
  { choose, patienceMs, complain }: AskerOptions,
): Asker {
  const authorization = `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;

  async function ask(port: number, method: string, route: string, body?: object): Promise<Answer> {
    const response = await fetch(`http://127.0.0.1:${port}${route}`, {
      method,
      headers: {
        Authorization: authorization,
        'X-Broker-API-Version': '2.17',
        ...(body !== undefined && { 'Content-Type': 'application/json' }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(30_000),
    });
    const answer = { status: response.status, body: (await response.json()) as Answer['body'] };
    // 503 says that the database is away, which passes. Any other is a defect, whatever the next try brings.
    if (answer.status >= 500 && answer.status !== 503) {
      const { pathname } = new URL(response.url);
      complain(`${method} ${pathname} was answered ${answer.status}: ${JSON.stringify(answer.body)}`);
    }
    return answer;
  }

  return {
    ask,
    /** Connection errors and 5xx are asked again, and so is 422 ConcurrencyError, which says that it passes. */
    async insist(method, route, body) {
      const deadline = performance.now() + patienceMs;
      for (;;) {
        const answer = await ask(choose(), method, route, body).catch((error: unknown) => String(error));
        const passes =
          typeof answer === 'string' || answer.status >= 500 || answer.body['error'] === 'ConcurrencyError';
        if (!passes) return answer;
        if (performance.now() > deadline) {
          throw new Error(`${method} ${route} had no answer: ${JSON.stringify(answer)}`);
        }
        await delay(retryEveryMs);
      }
    },
  };
}
