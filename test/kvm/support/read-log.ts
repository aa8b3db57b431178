/**
 * Prints what a broker logs while a test waits for it, one short line for each entry.
 * @returns what ends it.
 */
export function readLog(output: () => string): () => Promise<void> {
  let seen = 0;
  const print = () => {
    const text = output();
    const end = text.lastIndexOf('\n') + 1;
    if (end <= seen) return;
    const lines = text.slice(seen, end).trimEnd().split('\n').map(short);
    for (const line of lines) if (line !== 'Request answered') console.log(`  broker: ${line}`);
    seen = end;
  };
  const timer = setInterval(print, 1_000);
  return () => {
    clearInterval(timer);
    print();
    return Promise.resolve();
  };
}

function short(line: string): string {
  try {
    const { msg, err } = JSON.parse(line) as { msg?: string; err?: { message?: string } };
    return [msg, err?.message].filter((part) => part !== undefined).join(': ');
  } catch {
    return line;
  }
}
