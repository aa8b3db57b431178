import { readFile } from 'node:fs/promises';
import { buffer } from 'node:stream/consumers';
import { pack } from 'tar-stream';
import type { EngineAddress } from '../../../core/hypervisor/network.ts';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { askEngine, type EngineRequest } from '../engine/engine.ts';

/** Under emulation the first run of everything is slow. Milliseconds. */
const timeoutMs = 120_000;
const maxBytes = 1024 * 1024;
const image = 'berth-warm-up:1';

/**
 * Lets an engine do one of everything that users do first, and removes the results: the code that this loads is then in
 * the memory of every host restored from the template.
 */
export async function warmUpEngine(engine: EngineAddress, report: (step: string) => void): Promise<void> {
  const ask = async (method: EngineRequest['method'], path: string, body?: unknown) => {
    const sent =
      body === undefined
        ? {}
        : Buffer.isBuffer(body)
          ? { body, contentType: 'application/x-tar' }
          : { body: Buffer.from(JSON.stringify(body)) };
    const answer = await askEngine(engine, { method, path, timeoutMs, maxBytes, ...sent });
    if (answer.status >= 400) {
      const message = answer.body.toString('utf8').slice(0, 500);
      throw new HypervisorError(`The engine refused ${method} ${path} (${answer.status}): ${message}`);
    }
    return answer.body;
  };
  const create = async (config: object): Promise<string> =>
    (JSON.parse((await ask('POST', '/containers/create', config)).toString('utf8')) as { Id: string }).Id;

  report('importing an image');
  const [name, tag] = image.split(':');
  await ask('POST', `/images/create?fromSrc=-&repo=${name ?? ''}&tag=${tag ?? ''}`, await busyboxTree());
  for (const path of ['/version', '/info', '/containers/json', '/images/json', `/images/${image}/json`]) {
    await ask('GET', path);
  }

  report('running a container');
  const id = await create({
    Image: image,
    Cmd: ['/bin/sh', '-c', 'echo ready; exec sleep 600'],
    ExposedPorts: { '80/tcp': {} },
    HostConfig: { PortBindings: { '80/tcp': [{ HostPort: '20010' }] } },
  });
  await ask('POST', `/containers/${id}/start`);
  await ask('GET', `/containers/${id}/json`);
  await ask('GET', `/containers/${id}/logs?stdout=1&stderr=1`);
  report('running a command in it');
  const exec = JSON.parse(
    (
      await ask('POST', `/containers/${id}/exec`, { AttachStdout: true, Cmd: ['/bin/echo', 'hello'] })
    ).toString('utf8'),
  ) as { Id: string };
  await ask('POST', `/exec/${exec.Id}/start`, { Detach: false, Tty: false });
  await ask('GET', `/exec/${exec.Id}/json`);
  await ask('PUT', `/containers/${id}/archive?path=/tmp`, await tree([{ name: 'file', content: 'hello\n' }]));
  await ask('GET', `/containers/${id}/archive?path=/tmp/file`);
  await ask('POST', `/containers/${id}/kill`);
  await ask('POST', `/containers/${id}/wait`);
  await ask('DELETE', `/containers/${id}?force=1&v=1`);

  report('building an image');
  const dockerfile = `FROM ${image}\nCOPY file /file\nRUN --mount=type=cache,target=/cache cat /file >/cache/file\n`;
  const context = await tree([
    { name: 'Dockerfile', content: dockerfile },
    { name: 'file', content: 'hello\n' },
  ]);
  // With BuildKit, which needs no session if the context is the request's body.
  const built = await ask('POST', '/build?version=2&t=berth-warm-up:2', context);
  if (built.includes('"errorDetail"')) {
    throw new HypervisorError(`The engine could not build an image: ${built.toString('utf8').slice(-500)}`);
  }

  report('removing all of it');
  await ask('POST', '/containers/prune');
  await ask('DELETE', '/images/berth-warm-up:2?force=1');
  await ask('DELETE', `/images/${image}?force=1`);
  await ask('POST', `/images/prune?filters=${encodeURIComponent('{"dangling":["false"]}')}`);
  await ask('POST', '/build/prune?all=1');
}

async function busyboxTree(): Promise<Buffer> {
  const busybox = await readFile('/bin/busybox').catch((cause: unknown) => {
    throw new HypervisorError('/bin/busybox is missing: install the package busybox-static', { cause });
  });
  const links = ['sh', 'echo', 'cat', 'sleep'].map((name) => ({ name: `bin/${name}`, link: 'busybox' }));
  return tree([
    { name: 'bin', folder: true },
    { name: 'tmp', folder: true },
    { name: 'bin/busybox', content: busybox },
    ...links,
  ]);
}

type Entry =
  | { readonly name: string; readonly content: string | Buffer }
  | { readonly name: string; readonly folder: true }
  | { readonly name: string; readonly link: string };

async function tree(entries: readonly Entry[]): Promise<Buffer> {
  const tar = pack();
  for (const entry of entries) {
    if ('content' in entry) tar.entry({ name: entry.name, mode: 0o755 }, entry.content);
    else if ('folder' in entry) tar.entry({ name: entry.name, type: 'directory', mode: 0o755 });
    else tar.entry({ name: entry.name, type: 'symlink', linkname: entry.link });
  }
  tar.finalize();
  return buffer(tar);
}
