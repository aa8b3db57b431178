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

// Each seen as a 500 by chaos, or with the words taken out of the list.
it.each([
  'BEGIN; - Connection terminated unexpectedly',
  'ROLLBACK - Client has encountered a connection error and is not queryable',
  'select 1 - Connection ended unexpectedly',
])('is 503 where the connection to Postgres was lost: %s', async (message) => {
  const answer = await answerTo(new Error(message));
  expect(answer.status).toBe(503);
  expect(answer.text).toContain('Try again');
});

it('is 500, and tells nobody why, where the broker is wrong', async () => {
  const { status, text } = await answerTo(new Error('a secret went wrong'));
  expect(status).toBe(500);
  expect(text).not.toContain('secret');
});
