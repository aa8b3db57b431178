import type { RequestHandler } from 'express';
import { refused } from '../core/errors.ts';
import { platformOf } from './auth.ts';

/**
 * Bounds the requests of each platform, so that one platform which has gone wild leaves room for the others.
 * A token bucket, which holds a second's worth: short bursts pass, and no window's edge lets twice as many through.
 * Stands behind the authentication, so that there are never more buckets than platforms.
 * @param perSecond requests a second and platform, in this process.
 * @param now milliseconds of a clock that never goes back.
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
