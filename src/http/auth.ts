import { timingSafeEqual } from 'node:crypto';
import type { RequestHandler, Response } from 'express';
import { refused } from '../core/errors.ts';
import { credentialDigest, type KnownCredential, type Platform } from '../core/ports/platforms.ts';

export interface BasicCredentials {
  readonly username: string;
  readonly password: string;
}

/**
 * HTTP basic authentication (RFC 7617). Every known credential is compared, each in constant time: an unknown
 * name takes as long as a wrong password.
 * @throws RefusedError (401)
 */
export function basicAuth(known: () => readonly KnownCredential[]): RequestHandler {
  return (request, response, next) => {
    const encoded = /^Basic +([A-Za-z0-9+/=]+)$/i.exec(request.get('Authorization') ?? '')?.[1];
    const [, username = '', password = ''] =
      /^([^:]*):(.*)$/s.exec(Buffer.from(encoded ?? '', 'base64').toString('utf8')) ?? [];
    const sent = credentialDigest(username, password);
    let platform: Platform | undefined;
    for (const credential of known()) {
      if (timingSafeEqual(credential.digest, sent)) platform = credential.platform;
    }
    if (platform !== undefined) response.locals['platform'] = platform;
    next(platform === undefined ? refused.unauthorized() : undefined);
  };
}

/** Whether the request was authenticated; false also before {@link basicAuth} and for one that is refused earlier. */
export function isAuthenticated(response: object): boolean {
  return (response as Partial<Response>).locals?.['platform'] !== undefined;
}

/** The platform whose credential authenticated the request; only behind {@link basicAuth}. */
export function platformOf(response: Response): Platform {
  return response.locals['platform'] as Platform;
}
