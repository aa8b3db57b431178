import { createHash, timingSafeEqual } from 'node:crypto';
import type { RequestHandler } from 'express';
import { refused } from '../core/errors.ts';

export interface BasicCredentials {
  readonly username: string;
  readonly password: string;
}

/** Hashed first, so that neither length nor content shows in the time that the comparison takes. */
const digest = (text: string) => createHash('sha256').update(text).digest();

/**
 * HTTP basic authentication (RFC 7617) in constant time, before anything else of a request is looked at.
 * @throws RefusedError (401)
 */
export function basicAuth(expected: BasicCredentials): RequestHandler {
  const username = digest(expected.username);
  const password = digest(expected.password);
  return (request, _response, next) => {
    const encoded = /^Basic +([A-Za-z0-9+/=]+)$/i.exec(request.get('Authorization') ?? '')?.[1];
    const [, sentUsername = '', sentPassword = ''] =
      /^([^:]*):(.*)$/s.exec(Buffer.from(encoded ?? '', 'base64').toString('utf8')) ?? [];
    const usernameIsRight = timingSafeEqual(digest(sentUsername), username);
    const passwordIsRight = timingSafeEqual(digest(sentPassword), password);
    next(usernameIsRight && passwordIsRight ? undefined : refused.unauthorized());
  };
}
