import { existsSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { ask, copyFiles, makeReplica, makeServer, type PostgresServer } from '../lib/postgres-servers.ts';

/** The drill's Postgres, at an address that stays the same after a failover. */
export interface ChaosPostgres {
  readonly connectionString: string;
  /** Crashes it and starts it again. */
  restart(): Promise<void>;
  /** Starts it if it has crashed. */
  ensureRunning(): Promise<void>;
  /** Copies its files; it is stopped for a moment. */
  backUp(): Promise<void>;
  /** Replaces its files by the backup. */
  restoreBackup(): Promise<void>;
  /** Makes a streaming replica that has everything so far, and lacks what is written from then on. */
  makeReplica(): Promise<void>;
  /** Stops it, and promotes the replica at its address. */
  failOver(): Promise<void>;
  stop(): Promise<void>;
}

/** @param directory the installation's; short, because it contains Unix sockets. */
export async function startChaosPostgres(directory: string): Promise<ChaosPostgres> {
  const at = (name: string) => path.join(directory, name);
  const address = at('socket');
  let turn = 1;
  const folder = (number: number) => at(`postgres-${number}`);
  let server: PostgresServer = await makeServer(folder(turn), address);
  const data = () => path.join(server.directory, 'data');

  return {
    connectionString: server.url,
    async restart() {
      await kill(data());
      await server.start();
    },
    ensureRunning: () => server.start(),
    async backUp() {
      await server.stop();
      await copyFiles(data(), at('backup'));
      await server.start();
    },
    async restoreBackup() {
      await server.stop();
      await copyFiles(at('backup'), data());
      await server.start();
    },
    async makeReplica() {
      await makeReplica(server, folder(turn + 1), at('standby'));
    },
    async failOver() {
      const former = server;
      await former.stop();
      turn += 1;
      server = await makeServer(folder(turn), address);
      await ask(server.url, 'SELECT pg_promote()');
      await rm(former.directory, { recursive: true, force: true });
    },
    stop: () => server.stop(),
  };
}

/** SIGQUIT ends the server and all backends at once, like a crash (PostgreSQL manual, 18.5). */
async function kill(data: string): Promise<void> {
  const pid = Number((await readFile(path.join(data, 'postmaster.pid'), 'utf8')).split('\n')[0]);
  process.kill(pid, 'SIGQUIT');
  while (existsSync(`/proc/${pid}`)) await delay(20);
}
