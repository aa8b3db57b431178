import express from 'express';
import supertest from 'supertest';
import { expect, it } from 'vitest';
import { errorHandler } from '../../src/http/errors.ts';
import { silentLogger } from '../support/logger.ts';

const answerTo = (error: Error) =>
  supertest(
    express()
      .use(() => {
        throw error;
      })
      .use(errorHandler(silentLogger)),
  ).get('/');

// Each was a 500 in chaos runs; fails without its entry in lostConnection (errors.ts).
it.each([
  'BEGIN; - Connection terminated unexpectedly',
  'ROLLBACK - Client has encountered a connection error and is not queryable',
  'select 1 - Connection ended unexpectedly',
])('errors: a lost connection to Postgres is 503: %s', async (message) => {
  const answer = await answerTo(new Error(message));
  expect(answer.status).toBe(503);
  expect(answer.text).toContain('Try again');
});

// The first was a 500 in a chaos run; fails without class 53 (errors.ts).
it.each([
  ['53100', 'could not extend file "base/5/16829": No space left on device'],
  ['53200', 'out of memory'],
  ['53300', 'sorry, too many clients already'],
])('errors: a Postgres without resources is 503: %s', async (code, message) => {
  const answer = await answerTo(Object.assign(new Error(`update "bindings" - ${message}`), { code }));
  expect(answer.status).toBe(503);
  expect(answer.text).toContain('Try again');
  expect(answer.text).not.toContain('update');
});

it('errors: an unexpected error is 500 without its message', async () => {
  const { status, text } = await answerTo(new Error('a secret went wrong'));
  expect(status).toBe(500);
  expect(text).not.toContain('secret');
});
