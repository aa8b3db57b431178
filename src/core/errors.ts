/**
 * The error catalogue: every refusal that a client can meet, as a value with its HTTP status and, where the
 * specification names one, its error code (OSB 2.17, "Service Broker Errors"). `http/errors.ts` is the only
 * translator to HTTP.
 */
export interface Refusal {
  readonly status: number;
  /** Error code of the specification; left out where it names none. */
  readonly code?: string;
  /** Answer with `{}` and no description: what the specification wants of 410. */
  readonly emptyBody?: boolean;
  /** Whole seconds after which it is worth asking again. */
  readonly retryAfterSeconds?: number;
  readonly description: string;
}

/** A request that can't be met. Nothing was changed. */
export class RefusedError extends Error {
  override readonly name = 'RefusedError';

  constructor(
    readonly refusal: Refusal,
    options?: ErrorOptions,
  ) {
    super(refusal.description, options);
  }
}

const refuse = (refusal: Refusal) => new RefusedError(refusal);

export const refused = {
  unauthorized: () =>
    refuse({ status: 401, description: 'The username or password is wrong, or none was sent.' }),
  apiVersion: (sent: string | undefined) =>
    refuse({
      status: 412,
      description:
        sent === undefined
          ? 'The header X-Broker-API-Version is missing. Send X-Broker-API-Version: 2.17; any 2.x is accepted.'
          : `X-Broker-API-Version is ${JSON.stringify(sent.slice(0, 40))}. This broker speaks 2.x, for example 2.17.`,
    }),
  badRequest: (description: string) => refuse({ status: 400, description }),
  tooLarge: (description: string) => refuse({ status: 413, description }),
  notFound: (description: string) => refuse({ status: 404, description }),
  gone: () => refuse({ status: 410, emptyBody: true, description: 'It does not exist (any more).' }),
  conflict: (description: string) => refuse({ status: 409, description }),
  unprocessable: (description: string) => refuse({ status: 422, description }),
  /** Clients compare the next texts to the letter (docs/osb.md 6). */
  asyncRequired: () =>
    refuse({
      status: 422,
      code: 'AsyncRequired',
      description: 'This service plan requires client support for asynchronous service operations.',
    }),
  concurrency: () =>
    refuse({
      status: 422,
      code: 'ConcurrencyError',
      description: 'The Service Broker does not support concurrent requests that mutate the same resource.',
    }),
  tooManyRequests: (perSecond: number) =>
    refuse({
      status: 429,
      retryAfterSeconds: 1,
      description: `This broker answers ${perSecond} requests a second of one platform, and this one has sent more. Try again in a second; the operator can raise the limit with BERTH_RATE_PER_SECOND.`,
    }),
  headersTooLarge: (description: string) => refuse({ status: 431, description }),
  maintenanceInfoConflict: () =>
    refuse({
      status: 422,
      code: 'MaintenanceInfoConflict',
      description: 'The maintenance information for the requested Service Plan has changed.',
    }),
  unavailable: (description: string) => refuse({ status: 503, description }),
};
