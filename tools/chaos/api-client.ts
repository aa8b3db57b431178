import { setTimeout as delay } from 'node:timers/promises';

export interface Answer {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
}

/** Sends requests with credentials to one of several equivalent processes. */
export interface ApiClient {
  /** One request to one port, without retries. */
  readonly ask: (port: number, method: string, route: string, body?: object) => Promise<Answer>;
  /**
   * Retries, possibly with another process, until there is a definite answer.
   * @throws Error if there was none in time.
   */
  readonly askUntilAnswered: (method: string, route: string, body?: object) => Promise<Answer>;
}

export interface ApiClientOptions {
  /** Chooses the port for a request. */
  readonly choose: () => number;
  /** Deadline for every request and every operation, in milliseconds. */
  readonly patienceMs: number;
  /** Called for each answer that no client may ever get, because a retry would hide it. */
  readonly reportViolation: (violation: string) => void;
}

const retryEveryMs = 150;

export function createApiClient(
  { username, password }: { readonly username: string; readonly password: string },
  { choose, patienceMs, reportViolation: complain }: ApiClientOptions,
): ApiClient {
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
    // 503 means that the database is unavailable for now. Any other 5xx is a defect, whatever a retry returns.
    if (answer.status >= 500 && answer.status !== 503) {
      const { pathname } = new URL(response.url);
      complain(`${method} ${pathname} was answered ${answer.status}: ${JSON.stringify(answer.body)}`);
    }
    return answer;
  }

  return {
    ask,
    /** Connection errors, 5xx and 422 ConcurrencyError are temporary and are retried. */
    async askUntilAnswered(method, route, body) {
      const deadline = performance.now() + patienceMs;
      for (;;) {
        const answer = await ask(choose(), method, route, body).catch((error: unknown) => String(error));
        const isTemporary =
          typeof answer === 'string' || answer.status >= 500 || answer.body['error'] === 'ConcurrencyError';
        if (!isTemporary) return answer;
        if (performance.now() > deadline) {
          throw new Error(`${method} ${route} had no definite answer: ${JSON.stringify(answer)}`);
        }
        await delay(retryEveryMs);
      }
    },
  };
}
