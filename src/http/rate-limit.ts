import type { RequestHandler } from 'express';
import { refused } from '../core/errors.ts';
import { platformOf } from './auth.ts';

/**
 * Limits the requests of each platform, so that one faulty platform does not starve the others. A token bucket with
 * a capacity of one second: short bursts pass, and unlike fixed windows it never admits twice the rate.
 * Runs after authentication, so there are never more buckets than platforms.
 * @param perSecond requests per second and platform, in this process.
 * @param now milliseconds of a monotonic clock.
 * @throws RefusedError (429, with Retry-After)
 */
export function rateLimit(perSecond: number, now = () => performance.now()): RequestHandler {
  const buckets = new Map<string, { tokens: number; at: number }>();
  return (_request, response, next) => {
    const platform = platformOf(response).id;
    const at = now();
    const bucket = buckets.get(platform) ?? { tokens: perSecond, at };
    buckets.set(platform, bucket);
    bucket.tokens = Math.min(perSecond, bucket.tokens + ((at - bucket.at) / 1000) * perSecond);
    bucket.at = at;
    if (bucket.tokens < 1) {
      next(refused.tooManyRequests(perSecond));
      return;
    }
    bucket.tokens -= 1;
    next();
  };
}
