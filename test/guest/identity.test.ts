import { execFile } from 'node:child_process';
import { createPrivateKey, createPublicKey, type JsonWebKey } from 'node:crypto';
import path from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { createGuestIdentity, fingerprintOf } from '../../src/guest/identity.ts';
import { compiled } from '../support/build.ts';

const hostId = '0f8fad5b-d9cb-469f-a165-70867728950e';

const pointOf = ({ x = '', y = '' }: JsonWebKey) =>
  Buffer.concat([Buffer.from([4]), Buffer.from(x, 'base64url'), Buffer.from(y, 'base64url')]);

describe('guest identity', () => {
  it('guest identity: hostname and machine-id are stable for a host, everything else is new each time', () => {
    const one = createGuestIdentity(hostId);
    const other = createGuestIdentity(hostId);
    expect(one.hostname).toBe('berth-0f8fad5b');
    expect(other.hostname).toBe(one.hostname);
    expect(other.machineId).toBe(one.machineId);
    for (const name of ['bootId', 'engineId'] as const) expect(other[name]).not.toBe(one[name]);
    expect(other.engineKey.fingerprint).not.toBe(one.engineKey.fingerprint);
    expect(other.entropy.equals(one.entropy)).toBe(false);
  });

  it('guest identity: shares nothing with another host', () => {
    const one = createGuestIdentity(hostId);
    const other = createGuestIdentity('7c9e6679-7425-40de-944b-e07fc1f90ae7');
    for (const name of ['hostname', 'machineId', 'bootId', 'engineId'] as const) {
      expect(other[name]).not.toBe(one[name]);
    }
    expect(other.engineKey.fingerprint).not.toBe(one.engineKey.fingerprint);
  });

  it('guest identity: has the formats that the kernel, systemd and dockerd expect', () => {
    const { machineId, bootId, entropy, engineId, engineKey } = createGuestIdentity(hostId);
    // machine-id(5)
    expect(machineId).toMatch(/^[0-9a-f]{32}$/);
    expect(machineId).not.toBe(hostId.replaceAll('-', ''));
    expect(bootId).toMatch(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
    // At least the size of the kernel's random pool.
    expect(entropy.length).toBeGreaterThanOrEqual(64);
    expect(engineId).toMatch(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
    expect(engineKey.fingerprint).toMatch(/^([A-Z2-7]{4}:){11}[A-Z2-7]{4}$/);
  });

  it("guest identity: the engine key's fingerprint derives from the key", () => {
    const { fingerprint, key } = createGuestIdentity(hostId).engineKey;
    const jwk = JSON.parse(key) as JsonWebKey & { d: string };
    expect(jwk).toMatchObject({ crv: 'P-256', kty: 'EC', kid: fingerprint });
    const publicKey = createPublicKey(createPrivateKey({ key: jwk, format: 'jwk' }));
    expect(publicKey.export({ format: 'jwk' })).toMatchObject({ x: jwk.x, y: jwk.y });
    expect(fingerprintOf(pointOf(jwk))).toBe(fingerprint);
  });

  // Fails, because the process hangs, if the key is exported from a KeyObject that was just made.
  it('guest identity: making many keys never blocks the thread, even if the garbage collector often runs', async () => {
    await compiled();
    const module = path.join(import.meta.dirname, '../../dist/src/guest/identity.js');
    const program = `import(${JSON.stringify(module)}).then(({ createGuestIdentity }) => {
      for (let count = 0; count < 20000; count += 1) createGuestIdentity('${hostId}');
      console.log('done');
    })`;
    const node = ['--max-semi-space-size=1', '-e', program];
    const { stdout } = await promisify(execFile)(process.execPath, node, { timeout: 100_000 });
    expect(stdout).toBe('done\n');
  });
});

describe('engine key', () => {
  it('engine key: its fingerprint is the id that dockerd 20.10 derived from the same key', () => {
    // From a guest that was destroyed; the public half only.
    const key = {
      crv: 'P-256',
      kty: 'EC',
      x: 'WGqyo_e4BzCIHYKYirYbHp-0gyO-6x5KZBU6ySjWHx4',
      y: 'M0UIXNjb9Nt0CQX2iU4Kq3hSCHS2IIEFoZoOdyrL0KA',
    };
    expect(fingerprintOf(pointOf(key))).toBe('TVUN:5TZN:BQAP:PFSH:Y2IA:KH35:ICT6:P5MY:GYSR:SB72:VWHA:SVQU');
  });
});
