import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { parseCredentials } from '../../src/cli/context.ts';
import { ContextError, inputLimit, readInput } from '../../src/cli/credentials-input.ts';
import type { Credentials } from '../../src/http/osb/credentials-body.ts';
import { makeBindings } from './support/make-bindings.ts';

let mine: Credentials;
let other: Credentials;

beforeAll(async () => {
  [mine, other] = await makeBindings(new Date(Date.now() + 3_600_000));
});

const parse = (value: unknown, instance?: string) => parseCredentials(JSON.stringify(value), instance);

/** An instance in VCAP_SERVICES. */
const bound = (name: string, credentials: object = mine, binding: string | null = null) => ({
  label: 'container-host',
  name: binding ?? name,
  instance_name: name,
  binding_name: binding,
  plan: 'small',
  tags: [],
  credentials,
});
const vcap = (...instances: object[]) => ({
  postgres: [{ name: 'db', credentials: { uri: 'postgres://db', ca: 'a', cert: 'b', key: 'c' } }],
  'container-host': instances,
});

const base64 = (text: string) => Buffer.from(text).toString('base64');
/** A binding's Secret: one key each, nested values as JSON text. */
const secretOf = (credentials: object, name = 'my-binding') => {
  const data = Object.fromEntries(
    Object.entries(credentials).map(([key, value]) => [
      key,
      base64(typeof value === 'string' ? value : JSON.stringify(value)),
    ]),
  );
  const secret = { apiVersion: 'v1', kind: 'Secret', type: 'Opaque', data };
  const copy = { 'kubectl.kubernetes.io/last-applied-configuration': JSON.stringify(secret) };
  return { ...secret, metadata: { name, namespace: 'team', annotations: copy } };
};

/** Texts in which people get credentials, by source. `name` is that of the instance. */
const shapes: Readonly<Record<string, (name: string) => string>> = {
  'cf 6 and 7: service-key': (name) =>
    `Getting key me for service instance ${name} as admin...\n\n${JSON.stringify(mine, null, 1)}\n`,
  'cf 8: service-key': (name) =>
    `Getting key me for service instance ${name} as admin...\n\n${JSON.stringify({ credentials: mine }, null, 2)}\n\n`,
  'the details of a v3 binding': () => JSON.stringify({ credentials: mine, syslog_drain_url: null }),
  'the answer to an OSB bind': () =>
    JSON.stringify({ credentials: mine, metadata: { expires_at: '2027-01-01T00:00:00Z' } }),
  VCAP_SERVICES: (name) => JSON.stringify(vcap(bound(name))),
  'VCAP_SERVICES in a shell script': (name) =>
    `export VCAP_SERVICES='${JSON.stringify(vcap(bound(name)))}'\n`,
  'VCAP_SERVICES as JSON text': (name) => JSON.stringify(JSON.stringify(vcap(bound(name)))),
  'cf 7 and 8: env': (name) =>
    [
      `Getting env variables for app app in org o / space s as admin...`,
      `System-Provided:\nVCAP_SERVICES: ${JSON.stringify(vcap(bound(name)), null, 1)}\n`,
      `VCAP_APPLICATION: ${JSON.stringify({ name: 'app', limits: { fds: 16384 } }, null, 1)}\n`,
      'User-Provided:\nTEMPLATE: {{ a }} {"b": [\n\nNo running env variables have been set',
    ].join('\n'),
  'cf 6: env': (name) =>
    [
      'Getting env variables for app app in org o / space s as admin...\nOK\n\nSystem-Provided:',
      JSON.stringify({ VCAP_SERVICES: vcap(bound(name)) }, null, 1),
      `\n${JSON.stringify({ VCAP_APPLICATION: { application_name: 'app' } }, null, 1)}\n`,
      'No user-defined env variables have been set',
    ].join('\n'),
  'an answer of the API about the environment': (name) =>
    JSON.stringify({
      environment_variables: { A: '{' },
      system_env_json: { VCAP_SERVICES: vcap(bound(name)) },
      application_env_json: { VCAP_APPLICATION: {} },
    }),
  'kubectl get secret -o json': (name) => JSON.stringify(secretOf(mine, name), null, 4),
  'kubectl get secrets -o json': (name) =>
    JSON.stringify({ kind: 'List', items: [secretOf({ password: 'x' }), secretOf(mine, name)] }),
  'the data of a Secret': (name) => JSON.stringify(secretOf(mine, name).data),
  'a Secret with all credentials in one key': (name) =>
    JSON.stringify(secretOf({ credentials: mine, '.metadata': { format: 'json' } }, name)),
};

const streamOf = (chunks: Iterable<Buffer>) => ({
  async *[Symbol.asyncIterator]() {
    await Promise.resolve();
    yield* chunks;
  },
});

/** The message of the ContextError that `act` throws. */
const refusal = (act: () => unknown): string => {
  try {
    act();
  } catch (error) {
    expect(error).toBeInstanceOf(ContextError);
    return String(error);
  }
  throw new Error('no ContextError was thrown');
};

describe('the credentials in a service key', () => {
  const wanted = () => ({
    docker_host: 'tcp://berth.example.com:2376',
    ca: mine.ca,
    cert: mine.cert,
    key: mine.key,
  });

  it.each(Object.entries(shapes))('credentials: are found in %s', (_, shape) => {
    expect(parseCredentials(shape('my-host'))).toMatchObject(wanted());
  });

  it('credentials: are found with any name of the instance and any text around the JSON', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...Object.values(shapes)),
        fc.string(),
        fc.array(fc.constantFrom('{', '}', '{"', '"', '[', ']', '\\', "'", ' ', '\n', '{}', 'a')),
        fc.array(fc.constantFrom('{', '}', '{"', '"', '[', ']', '\\', "'", ' ', '\n', '{}', 'a')),
        (shape, name, before, after) => {
          const json = shape(name);
          // JSON text in JSON text is only read if nothing else is around it.
          const alone = json.startsWith('"');
          const text = alone ? json : `${before.join('')}\n${json}\n${after.join('')}`;
          expect(parseCredentials(text)).toMatchObject(wanted());
        },
      ),
    );
  });

  it('credentials: any other text is refused without quoting it', () => {
    const secret = mine.key.split('\n')[1] ?? '';
    const pieces = [
      ...Object.values(shapes).map((shape) => shape('x')),
      secret,
      '{',
      '"',
      '}',
      '[',
      '{"key":',
    ];
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.constantFrom(...pieces), fc.string()), { maxLength: 4 }),
        fc.nat(),
        (parts, cut) => {
          const text = parts.join('\n');
          try {
            parseCredentials(text.slice(0, cut % (text.length + 1)));
          } catch (error) {
            expect(error).toBeInstanceOf(ContextError);
            expect(String(error)).not.toContain(secret);
          }
        },
      ),
    );
  });

  it('credentials: --instance chooses if there are several, and an error lists their names', () => {
    const two = vcap(bound('first'), bound('second', other, 'blue'));
    const several = refusal(() => parse(two));
    expect(several).toContain('of: "first"; "second" or "blue". Choose one with --instance');
    expect(parse(two, 'first').key).toBe(mine.key);
    expect(parse(two, 'second').key).toBe(other.key);
    expect(parse(two, 'blue').key).toBe(other.key);
    expect(refusal(() => parse(two, 'db'))).toContain('"first"');
    const secrets = { kind: 'List', items: [secretOf(mine, 'one'), secretOf(other, 'two')] };
    expect(refusal(() => parse(secrets))).toContain('"one"; "two"');
    expect(parse(secrets, 'two').key).toBe(other.key);
    // The same credentials twice are no choice.
    expect(parse([mine, { credentials: mine }]).key).toBe(mine.key);
    expect(refusal(() => parse([mine, other]))).toContain('one without a name; one without a name');
  });

  it.each([
    ['UTF-8 with a byte order mark', (text: string) => Buffer.from(`\ufeff${text}`)],
    ['UTF-16 little-endian', (text: string) => Buffer.from(`\ufeff${text}`, 'utf16le')],
    ['UTF-16 little-endian without a mark', (text: string) => Buffer.from(text, 'utf16le')],
    ['UTF-16 big-endian', (text: string) => Buffer.from(`\ufeff${text}`, 'utf16le').swap16()],
  ])('credentials: may be in %s', async (_, encode) => {
    const bytes = encode(`Key “me” …\r\n\r\n${JSON.stringify(mine)}\r\n`);
    // Characters may be split between chunks.
    const chunks = Array.from({ length: Math.ceil(bytes.length / 7) }, (_, at) =>
      bytes.subarray(at * 7, at * 7 + 7),
    );
    expect(parseCredentials(await readInput(streamOf(chunks)))).toMatchObject(wanted());
  });

  // Fails without the limit: the search takes minutes.
  it('credentials: a long text with many braces is refused', () => {
    expect(refusal(() => parseCredentials('{"'.repeat(inputLimit / 2)))).toContain('JSON is invalid');
    expect(refusal(() => parseCredentials('['.repeat(inputLimit)))).toContain('no JSON');
  });

  it('credentials: an error names every missing or invalid field', () => {
    expect(refusal(() => parse({ credentials: { host: 'x' } }))).toContain(
      'docker_host, ca, cert and key in one',
    );
    const incomplete = { ca: mine.ca, cert: mine.cert, key: mine.key };
    expect(refusal(() => parse([bound('x', incomplete)]))).toContain('docker_host is missing');
    const missing = refusal(() => parse({ credentials: { docker_host: '' } }));
    for (const field of ['docker_host', 'ca', 'cert', 'key'])
      expect(missing).toContain(`${field} is missing`);
    expect(missing).toContain('cf service-key');
    const wrong = refusal(() =>
      parse({ ...mine, docker_host: 7, ca: mine.key, key: '-----BEGIN SECRET-----' }),
    );
    expect(wrong).toContain('docker_host is missing');
    expect(wrong).toContain("ca can't be used");
    expect(wrong).toContain("key can't be used");
    expect(wrong).not.toContain('SECRET');
    expect(wrong).not.toContain('cert is');
  });

  it.each([
    'https://berth.example.com:2376',
    'tcp://berth.example.com',
    'tcp://berth.example.com:0',
    'tcp://berth.example.com:70000',
    'tcp://a,ca=/etc/passwd:2376',
    'tcp://a:2376\nexport X=1',
  ])('credentials: are refused if docker_host is %j', (address) => {
    expect(refusal(() => parse({ ...mine, docker_host: address }))).toContain("docker_host can't be used");
  });

  it('credentials: may have an IPv6 address', () => {
    expect(parse({ ...mine, docker_host: 'tcp://[fd00::1]:2376' }).docker_host).toBe('tcp://[fd00::1]:2376');
  });

  it('credentials: are refused if key and certificate are from two bindings', () => {
    expect(refusal(() => parse({ ...mine, key: other.key }))).toContain('do not belong together');
  });

  it.each(['', 'FAILED\nService key me does not exist', '[]', '{"key": "-----BEGIN PRIVATE', '{]}'])(
    'credentials: are refused if the input is %j, without quoting it',
    (text) => {
      const message = refusal(() => parseCredentials(text));
      expect(message).toContain('cf service-key');
      expect(message).not.toContain('PRIVATE');
    },
  );

  it('credentials: are refused if the input exceeds the limit', async () => {
    const input = function* (length: number) {
      for (let sent = 0; sent < length; sent += 1024) yield Buffer.alloc(1024, 'x');
    };
    expect(await readInput(streamOf(input(inputLimit)))).toHaveLength(inputLimit);
    await expect(readInput(streamOf(input(inputLimit + 1)))).rejects.toThrow(ContextError);
  });
});
