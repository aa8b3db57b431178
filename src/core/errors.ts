/**
 * The catalogue of refusals: every reason for which a client's request is refused, with its HTTP status and, if the
 * specification names one, its error code (OSB 2.17, "Service Broker Errors"). Only `http/errors.ts` translates
 * them to HTTP.
 */
export interface Refusal {
  readonly status: number;
  /** Error code of the specification; undefined if it names none. */
  readonly code?: string;
  /** Answer with `{}` and no description, as the specification requires for 410. */
  readonly emptyBody?: boolean;
  /** Whole seconds until a retry makes sense. */
  readonly retryAfterSeconds?: number;
  readonly description: string;
}

/** A request was refused, and nothing was changed. */
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
  instanceNotFound: () => refuse({ status: 404, description: 'There is no instance with this id.' }),
  bindingNotFound: () => refuse({ status: 404, description: 'There is no binding with this id.' }),
  gone: () => refuse({ status: 410, emptyBody: true, description: 'It does not exist (any more).' }),
  conflict: (description: string) => refuse({ status: 409, description }),
  unprocessable: (description: string) => refuse({ status: 422, description }),
  instanceExpired: () =>
    refuse({
      status: 422,
      description: 'The instance has expired: its host is gone. Delete it and create a new one.',
    }),
  instanceFailed: () =>
    refuse({
      status: 422,
      description: 'The instance can not be used: its creation or its deletion failed. Delete it.',
    }),
  /** Clients compare the description to the letter (docs/osb.md 6), also of the next two codes. */
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
  maintenanceInfoConflict: () =>
    refuse({
      status: 422,
      code: 'MaintenanceInfoConflict',
      description: 'The maintenance information for the requested Service Plan has changed.',
    }),
  tooManyRequests: (perSecond: number) =>
    refuse({
      status: 429,
      retryAfterSeconds: 1,
      description: `This broker answers ${perSecond} requests a second per platform, and this platform has sent more. Try again in a second; the operator can raise the limit with BERTH_RATE_PER_SECOND.`,
    }),
  headersTooLarge: (description: string) => refuse({ status: 431, description }),
  unavailable: (description: string) => refuse({ status: 503, description }),
  databaseUnconfirmed: () =>
    refuse({
      status: 503,
      retryAfterSeconds: 2,
      description:
        "The broker's database was restored or failed over, and has not been compared with the hosts yet. A worker does so within seconds; try again in a moment.",
    }),
};
