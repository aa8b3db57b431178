import { expect, it } from 'vitest';
import { createStderrLog } from '../../../../src/hypervisors/qemu/launch/stderr-log.ts';
import { silentLogger } from '../../../support/logger.ts';

function listen() {
  let now = 0;
  const logged: Record<string, unknown>[] = [];
  const complaints = createStderrLog(
    {
      ...silentLogger,
      warn: (fields: Record<string, unknown>) => {
        logged.push(fields);
      },
    },
    () => now,
  );
  return {
    complaints,
    logged,
    pass: (ms: number) => {
      now += ms;
    },
  };
}

// Seen to fail without the limit in stderr-log.ts: each of the thousand was logged.
it('a flood of complaints is logged up to a limit, and how many were left out is said later', () => {
  const { complaints, logged, pass } = listen();
  complaints.begin('a');
  complaints.begin('b');
  for (let count = 1; count <= 1000; count += 1) complaints.hear('a', `word ${count}\n`);
  expect(logged).toHaveLength(20);
  expect(logged[0]).toEqual({ machine: 'a', text: 'word 1\n' });
  // It says as much about another one as ever.
  complaints.hear('b', 'something else');
  expect(logged[20]).toEqual({ machine: 'b', text: 'something else' });
  // A new start is no new limit.
  complaints.begin('a');
  complaints.hear('a', 'again');
  expect(logged).toHaveLength(21);

  pass(60_000);
  complaints.hear('a', 'at last');
  complaints.hear('a', 'too soon');
  expect(logged).toHaveLength(22);
  expect(logged[21]).toEqual({ machine: 'a', text: 'at last', leftOut: 981 });
});

// Seen to fail without `forget`: its last words were still there.
it('the end of what was said is kept until the machine has gone', () => {
  const { complaints } = listen();
  complaints.begin('a');
  complaints.hear('a', 'x'.repeat(5_000));
  complaints.hear('a', 'its last words\n');
  expect(complaints.lastWords('a')).toHaveLength(3_999);
  expect(complaints.lastWords('a')).toMatch(/xits last words$/);
  complaints.forget('a');
  expect(complaints.lastWords('a')).toBe('');
  complaints.hear('a', 'it is gone');
  expect(complaints.lastWords('a')).toBe('');
});
