/* eslint-disable max-lines -- every kind of certificate is checked with the same OpenSSL helpers */
import { execFile } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import tls from 'node:tls';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type CertificateAuthority,
  createCertificateAuthority,
  crossSign,
  longestChain,
} from '../../src/certificates/ca.ts';
import { createSerial, normaliseSerial } from '../../src/certificates/certificate-fields.ts';
import { issueClientCertificate } from '../../src/certificates/client-certificate.ts';
import { CryptoError } from '../../src/lib/crypto-error.ts';
import { createServerRequest, signServerRequest } from '../../src/certificates/server-certificate.ts';

const run = promisify(execFile);
const dayMs = 86_400_000;
const inDays = (days: number) => new Date(Date.now() + days * dayMs);

let directory: string;
let ca: CertificateAuthority;
let other: CertificateAuthority;

beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'berth-pki-'));
  ca = await createCertificateAuthority({ commonName: 'Berth test CA', validForDays: 30 });
  other = await createCertificateAuthority({ commonName: 'Berth test CA', validForDays: 30 });
});

afterAll(async () => {
  await rm(directory, { recursive: true, force: true });
});

/** OpenSSL's verdict on a certificate for a purpose: an implementation that is independent of ours. */
async function verify(
  purpose: 'sslclient' | 'sslserver',
  caPem: string,
  certificate: string,
): Promise<string> {
  const [caFile, file] = [path.join(directory, 'ca.pem'), path.join(directory, 'leaf.pem')];
  await writeFile(caFile, caPem);
  await writeFile(file, certificate);
  const args = ['verify', '-x509_strict', '-purpose', purpose, '-CAfile', caFile, file];
  return run('openssl', args).then(
    ({ stdout }) => stdout.replace(`${file}: `, '').trim(),
    (error: unknown) => (error as { stderr: string }).stderr,
  );
}

async function openssl(certificate: string, ...show: string[]): Promise<string> {
  const file = path.join(directory, 'shown.pem');
  await writeFile(file, certificate);
  return (await run('openssl', ['x509', '-in', file, '-noout', ...show])).stdout;
}

describe('createCertificateAuthority', () => {
  it('new CA: may sign leaf certificates only', async () => {
    const text = await openssl(ca.certificatePem, '-ext', 'basicConstraints,keyUsage');
    expect(text).toContain('CA:TRUE, pathlen:0');
    expect(text).toContain('Certificate Sign, CRL Sign');
    expect(text).not.toContain('Digital Signature');
    // Its own certificate is not valid for any connection.
    expect(await verify('sslclient', ca.certificatePem, ca.certificatePem)).toContain(
      'unsuitable certificate purpose',
    );
  });

  it('new CA: does not parse its common name as a distinguished name', async () => {
    const odd = await createCertificateAuthority({ commonName: 'a,CN=b+O="c"', validForDays: 1 });
    const subject = new X509Certificate(odd.certificatePem).toLegacyObject().subject;
    expect({ ...subject }).toEqual({ CN: 'a,CN=b+O="c"' });
  });

  it('new CA: is valid for the requested time, also past 2049 (RFC 5280, 4.1.2.5)', async () => {
    const long = await createCertificateAuthority({ commonName: 'long', validForDays: 36_500 });
    const until = Date.parse(new X509Certificate(long.certificatePem).validTo);
    expect(Math.abs(until - inDays(36_500).getTime())).toBeLessThan(60_000);
  });

  it.each([0, -1, 1.5, Number.NaN, 40_000])('new CA: refuses a validity of %s days', async (validForDays) => {
    await expect(createCertificateAuthority({ commonName: 'x', validForDays })).rejects.toThrow(
      /validForDays/,
    );
  });

  it.each(['', 'x'.repeat(65)])('new CA: refuses the common name %j', async (commonName) => {
    await expect(createCertificateAuthority({ commonName, validForDays: 1 })).rejects.toThrow(/commonName/);
  });
});

describe('issueClientCertificate', () => {
  it('client certificate: is valid for clients of its CA only', async () => {
    const issued = await issueClientCertificate(ca, { commonName: 'binding', notAfter: inDays(1) });
    expect(await verify('sslclient', ca.certificatePem, issued.certificatePem)).toBe('OK');
    expect(await verify('sslserver', ca.certificatePem, issued.certificatePem)).toContain(
      'unsuitable certificate purpose',
    );
    // The other CA has the same name: only the keys differ.
    expect(await verify('sslclient', other.certificatePem, issued.certificatePem)).not.toBe('OK');
    expect(new X509Certificate(issued.certificatePem).ca).toBe(false);
  });

  it('client certificate: is returned with its key, serial and expiry', async () => {
    const notAfter = new Date(Math.floor(inDays(2).getTime() / 1000) * 1000 + 987);
    const issued = await issueClientCertificate(ca, { commonName: 'binding', notAfter });
    const parsed = new X509Certificate(issued.certificatePem);
    expect(parsed.serialNumber.toLowerCase()).toBe(issued.serial);
    expect(Date.parse(parsed.validTo)).toBe(issued.expiresAt.getTime());
    expect(notAfter.getTime() - issued.expiresAt.getTime()).toBe(987);
    // Already valid for a client whose clock is four minutes slow.
    expect(Date.parse(parsed.validFrom)).toBeLessThan(Date.now() - 4 * 60_000);
    expect(() =>
      tls.createSecureContext({ cert: issued.certificatePem, key: issued.privateKeyPem }),
    ).not.toThrow();
  });

  it('client certificate: has a key and a serial that no other has', async () => {
    const request = { commonName: 'binding', notAfter: inDays(1) };
    const made = await Promise.all([1, 2].map(() => issueClientCertificate(ca, request)));
    expect(new Set(made.map(({ privateKeyPem }) => privateKeyPem)).size).toBe(2);
    expect(new Set(made.map(({ serial }) => serial)).size).toBe(2);
  });

  it.each([
    ['in the past', () => inDays(-1), /notAfter .* must be in the future/],
    ['after that of its CA', () => inDays(31), /CA itself expires/],
    ['not a date', () => new Date(Number.NaN), /notAfter is not a date/],
  ])('client certificate: refuses an expiry that is %s', async (_, notAfter, message) => {
    const request = { commonName: 'binding', notAfter: notAfter() };
    const issuing = issueClientCertificate(ca, request);
    await expect(issuing).rejects.toThrow(CryptoError);
    await expect(issuing).rejects.toThrow(message);
  });

  it('client certificate: an error names the invalid field of the CA and never contains its key', async () => {
    const request = { commonName: 'binding', notAfter: inDays(1) };
    const damaged = ca.privateKeyPem.replace(/[A-Za-z0-9+/]{10}\n/, '!!!!\n');
    const failure = await issueClientCertificate({ ...ca, privateKeyPem: damaged }, request).catch(
      (error: unknown) => error as Error,
    );
    if (!(failure instanceof Error)) expect.unreachable('a damaged key was used');
    expect(failure).toBeInstanceOf(CryptoError);
    const printed = `${String(failure)} ${JSON.stringify(failure, Object.getOwnPropertyNames(failure))}`;
    expect(printed).toContain('privateKeyPem');
    expect(printed).not.toContain(ca.privateKeyPem.split('\n')[1]?.slice(0, 20));
    await expect(issueClientCertificate({ ...ca, certificatePem: 'none' }, request)).rejects.toThrow(
      /certificatePem/,
    );
  });
});

describe('crossSign', () => {
  it('crossSign: certificates of a new server CA verify with former CAs, over several rotations', async () => {
    const server = (commonName: string) =>
      createCertificateAuthority({ commonName, validForDays: 30, chain: longestChain });
    const line = [await server('first'), await server('second'), await server('third')] as const;
    const crosses = [
      await crossSign(line[1], line[2].certificatePem),
      await crossSign(line[0], line[1].certificatePem),
    ];
    const { requestPem } = await createServerRequest('gateway');
    const leaf = await signServerRequest(line[2], requestPem, { hosts: ['127.0.0.1'], notAfter: inDays(1) });
    const files = { leaf: path.join(directory, 'x-leaf'), chain: path.join(directory, 'x-chain') };
    await writeFile(files.leaf, leaf);
    const verifies = async (trusted: string, chain: readonly string[]) => {
      const caFile = path.join(directory, 'x-ca');
      await writeFile(caFile, trusted);
      await writeFile(files.chain, chain.join(''));
      const extra = chain.length > 0 ? ['-untrusted', files.chain] : [];
      return run('openssl', [
        'verify',
        '-no-CApath',
        '-CAfile',
        caFile,
        ...extra,
        '-purpose',
        'sslserver',
        files.leaf,
      ]).then(
        () => true,
        () => false,
      );
    };
    for (const { certificatePem } of line) expect(await verifies(certificatePem, crosses)).toBe(true);
    expect(await verifies(line[0].certificatePem, [])).toBe(false);
    expect(await verifies(line[0].certificatePem, crosses.slice(0, 1))).toBe(false);
    expect(await verifies(ca.certificatePem, crosses)).toBe(false);
  });

  it('crossSign: refuses a CA that may sign leaf certificates only', async () => {
    await expect(crossSign(ca, other.certificatePem)).rejects.toThrow('leaf certificates only');
  });
});

describe('serials', () => {
  it('serials: are positive, unique, without leading zeros, and have at least 128 random bits', () => {
    const serials = Array.from({ length: 2_000 }, createSerial);
    for (const serial of serials) expect(serial).toMatch(/^[4-7][0-9a-f]{33}$/);
    expect(new Set(serials).size).toBe(serials.length);
    // Each of the last 128 bits occurs both as 0 and as 1.
    const numbers = serials.map((serial) => BigInt(`0x${serial}`));
    const seen = (combine: (a: bigint, b: bigint) => bigint) => numbers.reduce(combine) & ((1n << 128n) - 1n);
    expect(seen((a, b) => a | b)).toBe((1n << 128n) - 1n);
    expect(seen((a, b) => a & b)).toBe(0n);
  });

  it.each(['', '0', '000', 'xyz', '-1', 'f'.repeat(41)])('serials: refuse %j', (text) => {
    expect(() => normaliseSerial(text)).toThrow(/serial/);
  });
});

describe('signServerRequest', () => {
  const grant = () => ({ hosts: ['berth.example.org', '192.0.2.7', '2001:db8::7'], notAfter: inDays(1) });

  it('server certificate: is valid for servers with the names that the signer grants only', async () => {
    const { requestPem } = await createServerRequest('some gateway');
    const certificate = await signServerRequest(ca, requestPem, grant());
    expect(await verify('sslserver', ca.certificatePem, certificate)).toBe('OK');
    expect(await verify('sslclient', ca.certificatePem, certificate)).toContain(
      'unsuitable certificate purpose',
    );
    const parsed = new X509Certificate(certificate);
    expect(parsed.ca).toBe(false);
    expect(parsed.checkHost('berth.example.org')).toBe('berth.example.org');
    expect(parsed.checkHost('other.example.org')).toBeUndefined();
    expect(parsed.checkIP('192.0.2.7')).toBe('192.0.2.7');
    expect(parsed.checkIP('2001:db8::7')).toBe('2001:db8::7');
  });

  it('server certificate: takes only the key from the request', async () => {
    const wish = path.join(directory, 'wish.cnf');
    await writeFile(
      wish,
      '[req]\ndistinguished_name=dn\nreq_extensions=ext\nprompt=no\n[dn]\nCN=evil\n[ext]\nbasicConstraints=CA:TRUE\nsubjectAltName=DNS:evil.example.org\n',
    );
    const { stdout } = await run('openssl', [
      ...['req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
      ...['-keyout', path.join(directory, 'wish.key'), '-config', wish],
    ]);
    const text = await openssl(await signServerRequest(ca, stdout, grant()), '-text');
    expect(text).not.toContain('evil');
    expect(text).toContain('CA:FALSE');
  });

  it('server certificate: refuses a request that is not signed by its own key', async () => {
    const [mine, theirs] = [await createServerRequest('a'), await createServerRequest('a')];
    const der = (pem: string) => Buffer.from(pem.replace(/-----.*-----/g, ''), 'base64');
    // A subject public key info of P-256 is 91 bytes long and begins like this (RFC 5480).
    const start = Buffer.from('3059301306072a8648ce3d0201', 'hex');
    const [forged, source] = [der(mine.requestPem), der(theirs.requestPem)];
    const [to, from] = [forged.indexOf(start), source.indexOf(start)];
    expect(Math.min(to, from)).toBeGreaterThan(0);
    source.copy(forged, to, from, from + 91);
    const pem = `-----BEGIN CERTIFICATE REQUEST-----\n${forged.toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`;
    await expect(signServerRequest(ca, pem, grant())).rejects.toThrow(/signature/);
  });

  it('server certificate: refuses keys other than P-256', async () => {
    for (const kind of [['rsa:2048'], ['ec', '-pkeyopt', 'ec_paramgen_curve:P-384']]) {
      const { stdout } = await run('openssl', [
        ...['req', '-new', '-nodes', '-subj', '/CN=x', '-keyout', path.join(directory, 'kind.key')],
        ...['-newkey', ...kind],
      ]);
      await expect(signServerRequest(ca, stdout, grant())).rejects.toThrow(/not a P-256 key/);
    }
  });

  it.each(['', 'none', '-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----'])(
    'server certificate: refuses the request %j',
    async (requestPem) => {
      await expect(signServerRequest(ca, requestPem, grant())).rejects.toThrow(/PKCS#10/);
    },
  );

  it('server certificate: refuses a huge request before parsing it', async () => {
    const { requestPem } = await createServerRequest('x');
    await expect(signServerRequest(ca, requestPem + '\n'.repeat(20_000), grant())).rejects.toThrow(
      /at most 16384/,
    );
  });

  it.each([[[]], [['']], [['a b']], [['*.example.org']], [['999.1.1.1/8']], [['x'.repeat(254)]]])(
    'server certificate: refuses the hosts %j',
    async (hosts) => {
      const { requestPem } = await createServerRequest('x');
      await expect(signServerRequest(ca, requestPem, { ...grant(), hosts })).rejects.toThrow(/hosts/);
    },
  );
});

it('certificates: work together in mutual TLS', async () => {
  const { requestPem, privateKeyPem } = await createServerRequest('gateway');
  const certificate = await signServerRequest(other, requestPem, {
    hosts: ['127.0.0.1'],
    notAfter: inDays(1),
  });
  const client = await issueClientCertificate(ca, { commonName: 'binding', notAfter: inDays(1) });
  const server = tls.createServer({
    key: privateKeyPem,
    cert: certificate,
    ca: ca.certificatePem,
    requestCert: true,
    rejectUnauthorized: true,
  });
  const seen = new Promise<string | undefined>((resolve) => {
    server.on('secureConnection', (socket) => {
      resolve(socket.getPeerX509Certificate()?.serialNumber);
      socket.on('error', () => undefined).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const socket = tls.connect({
    host: '127.0.0.1',
    port: (server.address() as { port: number }).port,
    ca: other.certificatePem,
    cert: client.certificatePem,
    key: client.privateKeyPem,
  });
  await new Promise((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject));
  expect(socket.authorized).toBe(true);
  expect((await seen)?.toLowerCase()).toBe(client.serial);
  socket.destroy();
  await new Promise((resolve) => server.close(resolve));
});
