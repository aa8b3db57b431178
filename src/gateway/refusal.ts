import type { Socket } from 'node:net';

/** Why a connection is refused. Logs and counters use these names. */
export type RefusalReason =
  | 'untrusted'
  | 'unknown'
  | 'expired'
  | 'out-of-sync'
  | 'look-up-failed'
  | 'host-away'
  | 'host-asleep'
  | 'no-room'
  | 'too-many'
  | 'too-many-of-host'
  | 'too-many-of-tenant'
  | 'engine-unreachable';

interface Answer {
  readonly status: string;
  readonly message: string;
}

/** The client's answer; docker prints the message. None reveals anything about hosts or other tenants. */
const answers: Record<RefusalReason, Answer> = {
  untrusted: {
    status: '403 Forbidden',
    message: "this gateway needs a binding's client certificate: use the ca, cert and key of your binding",
  },
  unknown: {
    status: '403 Forbidden',
    message: 'this certificate belongs to no live binding: it was unbound. Bind again for new credentials',
  },
  expired: {
    status: '403 Forbidden',
    message: "this binding's certificate has expired. Bind again for new credentials",
  },
  'out-of-sync': {
    status: '503 Service Unavailable',
    message: "the gateway can't tell at present which bindings are live. Try again shortly",
  },
  'look-up-failed': {
    status: '503 Service Unavailable',
    message: 'the gateway could not look your binding up in time. Try again shortly',
  },
  'host-away': {
    status: '503 Service Unavailable',
    message: 'your container host is not running at present, or is being restarted. Try again shortly',
  },
  'host-asleep': {
    status: '503 Service Unavailable',
    message: 'your container host was paused while idle, and could not be woken in time. Try again shortly',
  },
  'no-room': {
    status: '503 Service Unavailable',
    message:
      'your container host was suspended while idle, and the node lacks the memory to wake it. Try again later',
  },
  'too-many': {
    status: '503 Service Unavailable',
    message: 'too many connections of this binding are open. Close some of them first',
  },
  'too-many-of-host': {
    status: '503 Service Unavailable',
    message: 'too many connections to your container host are open. Close some of them first',
  },
  'too-many-of-tenant': {
    status: '503 Service Unavailable',
    message:
      'too many connections to container hosts of your organization are open. Close some of them first',
  },
  'engine-unreachable': {
    status: '502 Bad Gateway',
    message: "your container host's engine does not answer: it may be restarting. Try again shortly",
  },
};

/** Enough of a request to recognise HEAD, whose answer has no body (RFC 9110, 9.3.2). */
const methodLength = 'HEAD '.length;

/**
 * Answers in the format of an engine's errors, and ends the connection. The answer is sent once a request has
 * begun: HTTP clients report an earlier one as a protocol error. The client's input is discarded. The caller
 * limits the time.
 */
export function refuse(client: Socket, reason: RefusalReason): void {
  const { status, message } = answers[reason];
  const body = `${JSON.stringify({ message: `Berth: ${message}.` })}\n`;
  let method = '';
  let answered = false;

  const answer = () => {
    if (answered) return;
    answered = true;
    const head = [
      `HTTP/1.1 ${status}`,
      'Server: Berth',
      'Content-Type: application/json',
      `Content-Length: ${Buffer.byteLength(body)}`,
      'Connection: close',
    ];
    client.end(`${head.join('\r\n')}\r\n\r\n${method === 'HEAD ' ? '' : body}`);
  };
  // The input is read to its end: closing a socket with unread bytes resets it, and the reset may overtake the
  // answer.
  client.on('data', (chunk: Buffer) => {
    if (answered) return;
    method += chunk.toString('latin1', 0, methodLength - method.length);
    if (method.length === methodLength) answer();
  });
  // It may have ended before the listener below was added.
  if (client.readableEnded) answer();
  client.on('end', answer);
}
