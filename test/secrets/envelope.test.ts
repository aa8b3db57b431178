import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { EnvelopeError, isSealedWith, open, rewrap, seal } from '../../src/secrets/envelope.ts';
import { createKeyRing } from '../../src/secrets/key-ring.ts';
import { createMasterKeyText, masterKeyFromText, masterKeysFromText } from '../../src/secrets/master-key.ts';

const key = masterKeyFromText(createMasterKeyText());
const other = masterKeyFromText(createMasterKeyText());
const row = 'bindings/8f14/credentials';
const secret = Buffer.from('-----BEGIN PRIVATE KEY----- hush');

function reasonOf(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    if (error instanceof EnvelopeError) return error.reason;
    throw error;
  }
  return 'opened';
}

describe('seal and open', () => {
  it.each([0, 1, 32, 100_000])('seal and open: return %i bytes unchanged', (length) => {
    const plaintext = Buffer.alloc(length, 7);
    expect(open(key, seal(key, plaintext, row), row).equals(plaintext)).toBe(true);
  });

  it('seal: never returns the same bytes twice, nor the plaintext', () => {
    const [one, two] = [seal(key, secret, row), seal(key, secret, row)];
    expect(one.equals(two)).toBe(false);
    expect(one.includes(secret.subarray(0, 8))).toBe(false);
    // Data keys differ too: with the same key and nonce, equal plaintexts would have equal ciphertexts.
    expect(one.subarray(-secret.length).equals(two.subarray(-secret.length))).toBe(false);
  });

  it('open: detects any flipped byte', () => {
    const sealed = seal(key, secret, row);
    const reasons = [...sealed.keys()].map((index) => {
      const altered = Buffer.from(sealed);
      altered[index] = (altered[index] ?? 0) ^ 0x01;
      return reasonOf(() => open(key, altered, row));
    });
    expect(reasons[0]).toBe('unknown-version');
    expect(new Set(reasons.slice(1, 9))).toEqual(new Set(['wrong-master-key']));
    expect(new Set(reasons.slice(9))).toEqual(new Set(['damaged']));
  });

  it('open: detects truncation and added bytes', () => {
    const sealed = seal(key, secret, row);
    for (let length = 0; length < sealed.length; length += 1) {
      expect(reasonOf(() => open(key, sealed.subarray(0, length), row))).toBe('damaged');
    }
    expect(reasonOf(() => open(key, Buffer.concat([sealed, Buffer.of(0)]), row))).toBe('damaged');
  });

  it('open: refuses a secret of another row', () => {
    const sealed = seal(key, secret, row);
    expect(reasonOf(() => open(key, sealed, 'bindings/8f15/credentials'))).toBe('damaged');
  });

  it('open: refuses the data key of another secret of the same row', () => {
    const [one, two] = [seal(key, secret, row), seal(key, secret, row)];
    const wrapped = 9 + 12 + 16 + 32;
    const mixed = Buffer.concat([one.subarray(0, wrapped), two.subarray(wrapped)]);
    expect(reasonOf(() => open(key, mixed, row))).toBe('damaged');
  });

  it('open: distinguishes a wrong master key from damage, and names the remedy but no secret', () => {
    const sealed = seal(key, secret, row);
    expect(isSealedWith(key, sealed)).toBe(true);
    expect(isSealedWith(other, sealed)).toBe(false);
    expect(() => open(other, sealed, row)).toThrow(
      `${row} was sealed with the master key ${key.id.toString('hex')}, but the master key in use is ${other.id.toString('hex')}`,
    );
    expect(reasonOf(() => open(other, sealed, row))).toBe('wrong-master-key');
  });
});

describe('rewrap', () => {
  it('rewrap: moves a secret to another master key and leaves its ciphertext unchanged', () => {
    const sealed = seal(key, secret, row);
    const moved = rewrap(key, other, sealed, row);
    expect(open(other, moved, row).equals(secret)).toBe(true);
    expect(reasonOf(() => open(key, moved, row))).toBe('wrong-master-key');
    expect(moved.subarray(69).equals(sealed.subarray(69))).toBe(true);
    expect(moved.length).toBe(sealed.length);
  });

  it('rewrap: refuses a secret of another key or row', () => {
    const sealed = seal(key, secret, row);
    expect(reasonOf(() => rewrap(other, key, sealed, row))).toBe('wrong-master-key');
    expect(reasonOf(() => rewrap(key, other, sealed, 'elsewhere'))).toBe('damaged');
  });
});

describe('key ring', () => {
  it('key ring: seals with one key and opens with any, each in its row only', () => {
    const ring = createKeyRing([key, other]);
    const before = ring.seal(secret, row);
    ring.sealWith(other.id.toString('hex'));
    const after = ring.seal(secret, row);
    expect([isSealedWith(key, before), isSealedWith(other, after)]).toEqual([true, true]);
    for (const sealed of [before, after]) {
      expect(ring.open(sealed, row).equals(secret)).toBe(true);
      expect(() => ring.open(sealed, 'elsewhere')).toThrow(EnvelopeError);
    }
    expect(ring.rewrap(after, row)).toBeUndefined();
    expect(isSealedWith(other, ring.rewrap(before, row) ?? before)).toBe(true);
  });

  it('key ring: names a missing key, which can be added later', () => {
    const ring = createKeyRing([key]);
    const sealed = seal(other, secret, row);
    expect(() => ring.open(sealed, row)).toThrow(other.id.toString('hex'));
    expect(() => ring.rewrap(sealed, row)).toThrow(EnvelopeError);
    expect(() => {
      ring.sealWith(other.id.toString('hex'));
    }).toThrow('does not contain the master key');
    ring.add([other]);
    expect(ring.open(sealed, row).equals(secret)).toBe(true);
  });
});

describe('masterKeysFromText', () => {
  it('masterKeysFromText: reads one key per line, and refuses a text without a key', () => {
    const texts = [createMasterKeyText(), createMasterKeyText()];
    const ids = (text: string) => masterKeysFromText(text).map(({ id }) => id.toString('hex'));
    expect(ids(`# two\n${texts.join('\n\n')}\n`)).toEqual(texts.flatMap(ids));
    expect(() => masterKeysFromText('# none\n')).toThrow(/32 bytes/);
    expect(() => masterKeysFromText(`${texts[0] ?? ''}\nnone`)).toThrow(/32 bytes/);
  });
});

describe('masterKeyFromText', () => {
  it('masterKeyFromText: reads base64 and hexadecimal, with surrounding whitespace', () => {
    const bytes = Buffer.alloc(32, 0xab);
    for (const text of [
      bytes.toString('base64'),
      bytes.toString('hex'),
      bytes.toString('hex').toUpperCase(),
    ]) {
      expect(masterKeyFromText(`\n ${text} \n`).bytes.equals(bytes)).toBe(true);
    }
  });

  it('createMasterKeyText: returns another key each time', () => {
    const texts = Array.from({ length: 100 }, createMasterKeyText);
    expect(new Set(texts.map((text) => masterKeyFromText(text).bytes.toString('hex'))).size).toBe(100);
  });

  it.each([
    '',
    'secret-that-is-short',
    'ab'.repeat(31),
    'ab'.repeat(33),
    Buffer.alloc(31, 1).toString('base64'),
    Buffer.alloc(33, 1).toString('base64'),
    `${'A'.repeat(20)} ${'A'.repeat(23)}`,
  ])('masterKeyFromText: refuses %j without repeating it', (text) => {
    const refuse = () => masterKeyFromText(text);
    expect(refuse).toThrow(/32 bytes/);
    if (text !== '') expect(refuse).not.toThrow(text);
  });

  it('master key: is not shown if its object is printed', () => {
    const shown = [inspect(key, { depth: 5 }), JSON.stringify(key)].join();
    expect(shown).not.toContain(key.bytes.toString('base64'));
    expect(shown).not.toContain('bytes');
    expect(shown).not.toContain(key.bytes.toString('hex').slice(0, 8).match(/../g)?.join(' '));
  });
});
