/** The user's input can't be used. The message names the field and the remedy, and never contains a secret. */
export class ContextError extends Error {
  override readonly name = 'ContextError';
}

/** Largest input in bytes. Cloud Foundry limits VCAP_SERVICES to 130 KB; UTF-16 doubles it. */
export const inputLimit = 1024 * 1024;

export const obtain =
  'Give one of these on standard input: the output of `cf service-key INSTANCE KEY`, of `cf env APP` or of `kubectl get secret NAME -o json`, or the value of VCAP_SERVICES.';

export type JsonObject = Readonly<Record<string, unknown>>;

/** An object with credentials, and the names by which users know it, of its instance or Secret first. */
interface Found {
  readonly names: readonly string[];
  readonly fields: JsonObject;
}

/** An instance in VCAP_SERVICES is 4 levels deep, in the API's answer about an app's environment 6. */
const deepest = 16;
/** An input with many braces that begin no JSON is searched this many times its length, which takes tenths of a second. */
const longestSearch = 32;
const longestList = 20;
/** `tcp://` in base64, as in the data of a Secret. */
const tcpInBase64 = 'dGNwOi8v';

/**
 * Reads all of an input, such as standard input: UTF-8, or UTF-16 as PowerShell writes it.
 * @throws ContextError if it is longer than {@link inputLimit}.
 */
export async function readInput(input: AsyncIterable<Buffer | string>): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of input) {
    const bytes = Buffer.from(chunk);
    length += bytes.length;
    if (length > inputLimit) {
      throw new ContextError(
        `The input is longer than ${inputLimit / 1024} KiB, so it can't be credentials. ${obtain}`,
      );
    }
    chunks.push(bytes);
  }
  return decode(Buffer.concat(chunks));
}

/** By its byte order mark, or by the zero byte of an ASCII character at the beginning (RFC 4627, section 3). */
function decode(bytes: Buffer): string {
  const [first, second] = bytes;
  if ((first === 0xff && second === 0xfe) || second === 0) return new TextDecoder('utf-16le').decode(bytes);
  if ((first === 0xfe && second === 0xff) || first === 0) return new TextDecoder('utf-16be').decode(bytes);
  return new TextDecoder('utf-8').decode(bytes);
}

/**
 * Finds a binding's credentials, at any depth, in any JSON of a text: a service key, VCAP_SERVICES, the output of
 * `cf env`, a Kubernetes Secret. Other text, such as headings, is skipped.
 * @param instance name of the instance, its binding or the Secret; only necessary if the text has several.
 * @throws ContextError if there are none, or several to choose from.
 */
export function findCredentials(text: string, instance?: string): JsonObject {
  const values = [...jsonValues(text)];
  if (values.length === 0) {
    // JSON.parse's error is dropped: it quotes the text, and with it a key.
    const problem = text.includes('{') ? 'The JSON is invalid or incomplete' : 'The input contains no JSON';
    throw new ContextError(`${problem}. ${obtain}`);
  }
  const found: Found[] = [];
  for (const value of values) collect(value, [], deepest, found);
  const complete = found.filter(({ fields }) => 'docker_host' in fields);
  return choose(withoutCopies(complete.length > 0 ? complete : found), instance);
}

function choose(found: readonly Found[], instance: string | undefined): JsonObject {
  if (found.length === 0) {
    throw new ContextError(
      `The input has no credentials of a container host: docker_host, ca, cert and key in one JSON object. ${obtain}`,
    );
  }
  const chosen = instance === undefined ? found : found.filter(({ names }) => names.includes(instance));
  const [only] = chosen;
  if (only !== undefined && chosen.length === 1) return only.fields;
  const list = found.slice(0, longestList).map(describeNames).join('; ');
  if (only === undefined) {
    throw new ContextError(`The input has no credentials of what --instance names, but of: ${list}.`);
  }
  throw new ContextError(
    `The input has several credentials, of: ${list}. Choose one with --instance NAME, or give only one.`,
  );
}

const describeNames = ({ names }: Found) =>
  names.map((name) => JSON.stringify(name.slice(0, 100))).join(' or ') || 'one without a name';

/** The JSON values in a text: the whole of it, or the objects in it. */
function* jsonValues(text: string): Generator {
  const whole = parseJson(text);
  if (typeof whole === 'object' || typeof whole === 'string') {
    yield whole;
    return;
  }
  const start = /\{\s*["}]/g;
  let budget = longestSearch * text.length;
  for (let match = start.exec(text); match !== null && budget > 0; match = start.exec(text)) {
    const end = endOfObject(text, match.index);
    const value = end === undefined ? undefined : parseJson(text.slice(match.index, end));
    budget -= (end ?? text.length) - match.index;
    start.lastIndex = value === undefined || end === undefined ? match.index + 1 : end;
    if (value !== undefined) yield value;
  }
}

/** The index behind the brace that closes the one at `from`; undefined if none does. */
function endOfObject(text: string, from: number): number | undefined {
  let depth = 0;
  let inString = false;
  for (let index = from; index < text.length; index += 1) {
    const char = text[index];
    if (inString) {
      if (char === '\\') index += 1;
      else if (char === '"') inString = false;
    } else if (char === '"') inString = true;
    else if (char === '{') depth += 1;
    else if (char === '}' && --depth === 0) return index + 1;
  }
  return undefined;
}

/** Undefined if it is not JSON. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** @param levels how much deeper to look. */
function collect(value: unknown, names: readonly string[], levels: number, found: Found[]): void {
  if (levels === 0) return;
  if (typeof value === 'string') {
    // Platforms that only have text values store nested ones as JSON text.
    if (/^\s*["{[]/.test(value)) collect(parseJson(value), names, levels - 1, found);
  } else if (Array.isArray(value)) {
    for (const item of value) collect(item, names, levels - 1, found);
  } else if (isObject(value)) {
    const object = decodeSecret(value);
    const all = [...new Set([...namesOf(object), ...names])];
    if (isCredentials(object)) found.push({ names: all, fields: object });
    else for (const child of Object.values(object)) collect(child, all, levels - 1, found);
  }
}

/** Incomplete ones too: the error then names the missing fields. */
const isCredentials = (object: JsonObject) =>
  'docker_host' in object || ['ca', 'cert', 'key'].filter((name) => name in object).length > 1;

function namesOf(object: JsonObject): readonly string[] {
  const { instance_name: instance, name, binding_name: binding, metadata } = object;
  const ofResource = isObject(metadata) ? metadata['name'] : undefined;
  return [instance, name, ofResource, binding].filter(
    (one) => typeof one === 'string' && one !== '',
  ) as string[];
}

/** The values of a Secret's data are in base64. */
function decodeSecret(object: JsonObject): JsonObject {
  const { kind, data, docker_host: host } = object;
  if (kind === 'Secret' && isObject(data)) return { ...object, data: decodeValues(data) };
  return typeof host === 'string' && host.startsWith(tcpInBase64) ? decodeValues(object) : object;
}

const decodeValues = (data: JsonObject): JsonObject =>
  Object.fromEntries(
    Object.entries(data).map(([name, value]) => [
      name,
      typeof value === 'string' ? Buffer.from(value, 'base64').toString('utf8') : value,
    ]),
  );

/** An annotation of kubectl, for one, has a copy of the Secret. */
function withoutCopies(found: readonly Found[]): readonly Found[] {
  const byContent = new Map<string, Found>();
  for (const one of found) {
    const { docker_host: host, ca, cert, key } = one.fields;
    const content = JSON.stringify([host, ca, cert, key]);
    if (!byContent.has(content)) byContent.set(content, one);
  }
  return [...byContent.values()];
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
