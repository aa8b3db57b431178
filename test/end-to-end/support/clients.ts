import { mkdir, symlink } from 'node:fs/promises';
import path from 'node:path';
import { expect } from 'vitest';
import { type Docker, type Outcome, runClient } from '../../../tools/lib/docker.ts';

/** The clients of Debian 13 with a binding's credentials. */
export interface Clients {
  /** With Debian 13's docker CLI first in PATH, and its docker-py for Python. */
  readonly environment: Readonly<Record<string, string>>;
  run(program: string, args: readonly string[], input?: string | Buffer): Promise<Outcome>;
  /** Runs a client that has to succeed, and returns its output. */
  succeeds(program: string, args: readonly string[], input?: string | Buffer): Promise<string>;
}

/**
 * Also gives buildx and compose of Debian 13 to `docker`, the node's own CLI.
 * @param unpacked folder of the clients' packages.
 */
export async function clientsFor(docker: Docker, unpacked: string): Promise<Clients> {
  const plugins = path.join(docker.environment.DOCKER_CONFIG, 'cli-plugins');
  await mkdir(plugins);
  for (const name of ['docker-buildx', 'docker-compose']) {
    await symlink(path.join(unpacked, 'usr/libexec/docker/cli-plugins', name), path.join(plugins, name));
  }
  const environment = {
    ...docker.environment,
    DOCKER_BUILDKIT: '1',
    PATH: `${path.join(unpacked, 'usr/bin')}:${process.env['PATH'] ?? ''}`,
    PYTHONPATH: path.join(unpacked, 'usr/lib/python3/dist-packages'),
  };
  const run: Clients['run'] = (program, args, input) => runClient(program, args, environment, input);
  return {
    environment,
    run,
    async succeeds(program, args, input) {
      const { code, stdout, stderr } = await run(program, args, input);
      expect(code, `${program} ${args.join(' ')}: ${stderr}`).toBe(0);
      return stdout;
    },
  };
}
