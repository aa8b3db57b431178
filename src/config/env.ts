import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import path from 'node:path';
import { addressPattern, networkPattern } from '../core/networks.ts';
import { noNameServers } from './defaults.ts';

/** How the text of an environment variable becomes a value. */
export interface SettingType<T> {
  /** Completes "it must be …". */
  readonly expected: string;
  /** Undefined if the text is invalid. */
  parse(text: string): T | undefined;
}

export type Environment = Readonly<Record<string, string | undefined>>;

/** The trimmed text of a variable; undefined if it is unset or empty. */
export function textOf(environment: Environment, name: string): string | undefined {
  const text = environment[name]?.trim();
  return text === '' ? undefined : text;
}

const integerIn = (text: string, least: number, most: number): number | undefined =>
  /^\d+$/.test(text) && Number(text) >= least && Number(text) <= most ? Number(text) : undefined;

/** @param what names the unit, such as "a number of milliseconds". */
export const integer = (what: string, least: number, most: number, note = ''): SettingType<number> => ({
  expected: `${what} from ${least} to ${most}${note}`,
  parse: (text) => integerIn(text, least, most),
});

export const port = integer('a port', 1, 65_535);
export const seconds = integer('a number of seconds', 1, 31_536_000);

/** @param allowed the values; the first one is the default. */
export const oneOf = <const T extends string>(...allowed: readonly [T, ...T[]]): SettingType<T> => ({
  expected: `one of: ${allowed.join(', ')}`,
  parse: (text) => allowed.find((one) => one === text),
});

export const matching = (pattern: RegExp, expected: string): SettingType<string> => ({
  expected,
  parse: (text) => (pattern.test(text) ? text : undefined),
});

/** The name of a file that this process can read. */
export const readableFile: SettingType<string> = {
  expected: 'a file that can be read: create it, or unset the variable',
  parse(text) {
    try {
      readFileSync(text);
      return text;
    } catch {
      return undefined;
    }
  },
};

export const absolutePath: SettingType<string> = {
  expected: 'an absolute path',
  parse: (text) => (path.isAbsolute(text) ? path.normalize(text) : undefined),
};

const isIPv4 = (text: string) => new RegExp(addressPattern).test(text);
const isIpAddress = (text: string) => isIPv4(text) || /^[0-9a-fA-F:]*:[0-9a-fA-F:.]*$/.test(text);

export const ipAddress: SettingType<string> = {
  expected: 'an IP address',
  parse: (text) => (isIpAddress(text) ? text : undefined),
};

const dnsName = /^[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*$/;

export const hostName: SettingType<string> = {
  expected: 'a DNS name or an IP address',
  parse: (text) => (isIpAddress(text) || (text.length <= 253 && dnsName.test(text)) ? text : undefined),
};

const listOf = (expected: string, isValid: (item: string) => boolean): SettingType<readonly string[]> => ({
  expected,
  parse(text) {
    const items = text.split(',').map((item) => item.trim());
    return items.every(isValid) ? items : undefined;
  },
});

/** Networks are IPv4, as those of catalogs and parameters. */
export const networkList = listOf(
  'IPv4 networks in CIDR notation without leading zeros, such as 198.51.100.0/24, separated by commas',
  (item) => new RegExp(networkPattern).test(item),
);

const label = '[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?';
/** The last label is not a number: that would be a mistyped address. */
const certificateName = new RegExp(`^(?=.{1,253}$)(${label}\\.)*(?!\\d+$)${label}$`);
const isCertificateName = (item: string) =>
  (isIP(item) !== 0 && !item.includes('%')) || certificateName.test(item);

const mostNames = 50;
const certificateNames = listOf('', isCertificateName);

/** Names and addresses as they are in a certificate. */
export const hostNames: SettingType<readonly string[]> = {
  expected: `DNS names and IP addresses without ports or wildcards, separated by commas, at most ${mostNames}`,
  parse(text) {
    const names = certificateNames.parse(text);
    return names !== undefined && names.length <= mostNames ? names : undefined;
  },
};

const addresses = listOf('', (item) => isIPv4(item) && !item.startsWith('127.'));

/** Addresses of name servers, as guests reach them: loopback is the guest's own. */
export const nameServers: SettingType<readonly string[]> = {
  expected: 'IPv4 addresses other than loopback, separated by commas, or `none`',
  parse: (text) => (text === 'none' ? noNameServers : addresses.parse(text)),
};

export const hostNetwork: SettingType<string> = {
  expected: 'an IPv4 network of /8 to /24, such as 10.209.0.0/16',
  parse(text) {
    const [address = '', length = ''] = text.split('/');
    return isIPv4(address) && integerIn(length, 8, 24) !== undefined ? text : undefined;
  },
};

export const portRange: SettingType<{ readonly first: number; readonly last: number }> = {
  expected: 'a range of ports from 1024 on, such as 20000-29999',
  parse(text) {
    const [, from = '', to = ''] = /^(\d+)-(\d+)$/.exec(text) ?? [];
    const first = integerIn(from, 1024, 65_535);
    const last = integerIn(to, 1024, 65_535);
    return first !== undefined && last !== undefined && first <= last ? { first, last } : undefined;
  },
};

export const factor: SettingType<number> = {
  expected: 'a number from 1 to 99, such as 4 or 2.5',
  parse: (text) => (/^\d{1,2}(\.\d)?$/.test(text) && Number(text) >= 1 ? Number(text) : undefined),
};
