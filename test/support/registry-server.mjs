// `node registry-server.mjs FOLDER`: a registry with one image under every name (Docker Registry HTTP API V2, only what
// a pull asks), over HTTPS on port 5443 and over HTTP on port 5000. A separate program, since it runs in a network namespace.
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';

const folder = process.argv[2] ?? '.';
const file = (name) => readFileSync(path.join(folder, name));
const manifest = file('manifest.json');
const { config, layers, mediaType } = JSON.parse(manifest.toString());
const known = new Set([config, ...layers].map(({ digest }) => digest));

function answer(request, response) {
  const [, kind, reference] = /^\/v2\/.+\/(manifests|blobs)\/([^/]+)$/.exec(request.url ?? '') ?? [];
  const content =
    kind === 'manifests' ? manifest : known.has(reference) ? file(reference.replace(':', '-')) : undefined;
  if (request.url !== '/v2/' && content === undefined) {
    response.writeHead(404).end();
    return;
  }
  response.writeHead(200, {
    'Docker-Distribution-Api-Version': 'registry/2.0',
    'Content-Type': kind === 'manifests' ? mediaType : 'application/octet-stream',
    'Content-Length': content?.length ?? 0,
  });
  response.end(request.method === 'HEAD' ? undefined : content);
}

createTlsServer({ key: file('key.pem'), cert: file('cert.pem') }, answer).listen(5443);
createServer(answer).listen(5000);
