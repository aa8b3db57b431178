import type { RequestHandler } from 'express';

/**
 * Keep answers, which may contain credentials, out of caches, and keep browsers from rendering or executing them
 * (OWASP REST Security Cheat Sheet, "Security Headers").
 */
const headers = new Map([
  ['Cache-Control', 'no-store'],
  ['X-Content-Type-Options', 'nosniff'],
  ['Content-Security-Policy', "default-src 'none'; frame-ancestors 'none'"],
  ['Referrer-Policy', 'no-referrer'],
]);

export const securityHeaders: RequestHandler = (request, response, next) => {
  response.setHeaders(headers);
  // Only over TLS (RFC 6797, 7.2).
  if (request.secure) response.setHeader('Strict-Transport-Security', 'max-age=31536000');
  next();
};
