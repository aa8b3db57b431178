import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import type { Target } from './connection.ts';

/** Sends images to `POST /images/load`, as `docker load` does. */
export interface Uploader {
  /**
   * Sends the file to a target.
   * @returns MiB per second, from the end of the handshake to the end of the answer.
   */
  upload(name: string, target: Target): Promise<number>;
}

const run = promisify(execFile);
const timeoutSeconds = 600;

/**
 * curl, since a client in Node would take longer than what is measured. docker, like all of Go, prefers AES-128.
 * @param options.directory for the keys; other users must not be able to read them.
 * @param options.file the upload, readable by every user.
 */
export function createUploader(options: { directory: string; file: string; bytes: number }): Uploader {
  return {
    async upload(name, target) {
      const url = `${target.tls === undefined ? 'http' : 'https'}://${target.host}:${target.port}/images/load?quiet=1`;
      const credentials: string[] = [];
      if (target.tls !== undefined) {
        for (const [option, text] of Object.entries({
          cacert: target.tls.ca,
          cert: target.tls.cert,
          key: target.tls.key,
        })) {
          const file = path.join(options.directory, `${name}-${option}.pem`);
          await writeFile(file, text, { mode: 0o600 });
          credentials.push(`--${option}`, file);
        }
      }
      const { stdout } = await run(
        'curl',
        [
          ...['--silent', '--show-error', '--fail', '--max-time', String(timeoutSeconds), ...credentials],
          ...['--tls13-ciphers', 'TLS_AES_128_GCM_SHA256', '--header', 'Expect:'],
          ...[
            '--header',
            'Content-Type: application/x-tar',
            '--request',
            'POST',
            '--upload-file',
            options.file,
          ],
          ...['--output', '/dev/null', '--write-out', '%{time_pretransfer} %{time_total}', url],
        ],
        target.uid === undefined ? {} : { uid: target.uid, gid: target.uid },
      );
      const [from = 0, to = 0] = stdout.split(' ').map(Number);
      return options.bytes / 2 ** 20 / (to - from);
    },
  };
}
