import { expect, it } from 'vitest';
import { createProgress, withoutElapsed } from '../../src/lib/progress.ts';

function recordingOutput(terminal: { columns?: number } | undefined) {
  const written: string[] = [];
  const write = (text: string | Uint8Array) => written.push(String(text)) > 0;
  return { written, out: { write, ...(terminal && { isTTY: true as const, ...terminal }) } };
}

it('progress: a log has one line per change, with the elapsed time once', () => {
  const { written, out } = recordingOutput(undefined);
  const progress = createProgress(out);
  for (const line of ['booting', 'booting', 'freezing']) progress.show(line);
  progress.end();
  expect(written).toEqual(['berth: booting (0 s)\n', 'berth: freezing (0 s)\n']);
});

it('progress: a terminal has one line that is rewritten, with the elapsed time once', () => {
  const { written, out } = recordingOutput({ columns: 80 });
  const progress = createProgress(out);
  for (const line of ['booting', 'freezing']) progress.show(line);
  progress.end();
  expect(written).toEqual(['\r\x1b[Kberth: booting (0 s)', '\r\x1b[Kberth: freezing (0 s)', '\n']);
});

// Fails if the line is written in full: `\r` does not reach the row above, which keeps an earlier time.
it('progress: a line that is wider than the terminal is cut and keeps the elapsed time', () => {
  const { written, out } = recordingOutput({ columns: 20 });
  createProgress(out).show('a step with a long name');
  expect(written).toEqual(['\r\x1b[Kberth: a step (0 s)']);
  expect(written[0]?.slice('\r\x1b[K'.length).length).toBeLessThan(20);
});

// Fails without `withoutElapsed`: the outer line ended in "(3 s) (0 s)".
it("progress: a line of another program's progress is shown with one elapsed time", () => {
  const { written, out } = recordingOutput(undefined);
  createProgress(out).show(withoutElapsed('template: booting the guest (3 s)'));
  expect(written).toEqual(['berth: template: booting the guest (0 s)\n']);
});
