import net from 'node:net';

/** A way to Postgres over TCP that a test can break. */
export interface BreakableProxy {
  /** Address of Postgres through this proxy. */
  readonly url: string;
  /** Sockets of the clients that are connected at present. */
  readonly clients: ReadonlySet<net.Socket>;
  /** What is connected becomes a black hole: no byte, no end, no reset. Later connections work. */
  silence(): void;
  /** Ends what is connected. Later connections work. */
  cut(): void;
  close(): void;
}

/** @param databaseUrl address of a Postgres server that listens on a socket in the file system. */
export async function createBreakableProxy(databaseUrl: string): Promise<BreakableProxy> {
  const target = new URL(databaseUrl.replace('@/', '@localhost/'));
  const directory = target.searchParams.get('host') ?? '';
  const port = target.searchParams.get('port') ?? '5432';
  const clients = new Set<net.Socket>();
  const all = new Set<net.Socket>();
  const server = net.createServer({ allowHalfOpen: true }, (client) => {
    const postgres = net.connect({ path: `${directory}/.s.PGSQL.${port}`, allowHalfOpen: true });
    clients.add(client);
    client.once('close', () => clients.delete(client));
    for (const [from, to] of [
      [client, postgres],
      [postgres, client],
    ] as const) {
      all.add(from);
      from.on('error', () => undefined);
      from.on('data', (chunk) => to.write(chunk));
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = new URL(target);
  url.search = '';
  url.host = `127.0.0.1:${(server.address() as net.AddressInfo).port}`;
  const cut = () => {
    for (const socket of all) socket.destroy();
    all.clear();
  };
  return {
    ...{ url: url.href, clients, cut },
    silence() {
      for (const socket of all) socket.removeAllListeners('data').resume();
    },
    close() {
      cut();
      server.close();
    },
  };
}
