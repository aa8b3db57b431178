import type { RequestHandler } from 'express';

/**
 * What keeps answers, which may hold credentials, out of caches, and browsers from making more of them than
 * data (OWASP REST Security Cheat Sheet, "Security Headers").
 */
const headers = new Map([
  ['Cache-Control', 'no-store'],
  ['X-Content-Type-Options', 'nosniff'],
  ['Content-Security-Policy', "default-src 'none'; frame-ancestors 'none'"],
  ['Referrer-Policy', 'no-referrer'],
]);

export const securityHeaders: RequestHandler = (request, response, next) => {
  response.setHeaders(headers);
  // Only over TLS, where alone it has a meaning (RFC 6797, 7.2).
  if (request.secure) response.setHeader('Strict-Transport-Security', 'max-age=31536000');
  next();
};
