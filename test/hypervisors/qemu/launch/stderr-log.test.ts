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

// Fails without the limit in stderr-log.ts: each of the thousand messages was logged.
it('stderr log: logs a flood up to a limit, and reports later how many messages were suppressed', () => {
  const { complaints, logged, pass } = listen();
  complaints.begin('a');
  complaints.begin('b');
  for (let count = 1; count <= 1000; count += 1) complaints.append('a', `word ${count}\n`);
  expect(logged).toHaveLength(20);
  expect(logged[0]).toEqual({ vm: 'a', text: 'word 1\n' });
  // Another VM has its own allowance.
  complaints.append('b', 'something else');
  expect(logged[20]).toEqual({ vm: 'b', text: 'something else' });
  // A restart does not refill the allowance.
  complaints.begin('a');
  complaints.append('a', 'again');
  expect(logged).toHaveLength(21);

  pass(60_000);
  complaints.append('a', 'at last');
  complaints.append('a', 'too soon');
  expect(logged).toHaveLength(22);
  expect(logged[21]).toEqual({ vm: 'a', text: 'at last', suppressed: 981 });
});

// Fails without `forget`: the output was still there.
it('stderr log: keeps the end of the output until the VM does not exist any more', () => {
  const { complaints } = listen();
  complaints.begin('a');
  complaints.append('a', 'x'.repeat(5_000));
  complaints.append('a', 'its last words\n');
  expect(complaints.lastOutput('a')).toHaveLength(3_999);
  expect(complaints.lastOutput('a')).toMatch(/xits last words$/);
  complaints.forget('a');
  expect(complaints.lastOutput('a')).toBe('');
  complaints.append('a', 'it is gone');
  expect(complaints.lastOutput('a')).toBe('');
});
