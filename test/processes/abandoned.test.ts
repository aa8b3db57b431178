import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { compiled } from '../support/build.ts';
import { eventually } from '../support/eventually.ts';

let main: string;
let directory: string;
beforeAll(async () => {
  main = path.join(await compiled(), 'main.js');
  directory = await mkdtemp('/var/tmp/berth-abandoned-');
});
afterAll(() => rm(directory, { recursive: true, force: true }));

// Fails if the end of the supervisor is only noticed by processes that have started: the port would stay taken.
it.each(['api', 'gateway', 'worker'])(
  'processes: the %s ends if its supervisor does while it starts',
  async (name) => {
    // A Postgres that never answers.
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const urlFile = path.join(directory, 'url');
    await writeFile(urlFile, `postgres://berth@127.0.0.1:${port}/berth`);
    const child = spawn(process.execPath, [main, name], {
      env: {
        PATH: process.env['PATH'],
        DATABASE_URL_FILE: urlFile,
        BERTH_STATE_DIR: directory,
        BERTH_HYPERVISOR: 'simulated',
      },
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    try {
      await once(server, 'connection');
      child.disconnect();
      await eventually(`the ${name} has ended`, () => child.exitCode !== null);
      expect(child.exitCode).toBe(0);
    } finally {
      child.kill('SIGKILL');
      server.close();
    }
  },
);
