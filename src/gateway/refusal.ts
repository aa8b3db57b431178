import type { Socket } from 'node:net';

/** Why a connection is not served. The name stands in logs and metrics. */
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
  | 'engine-unreachable';

interface Answer {
  readonly status: string;
  readonly message: string;
}

/** What a client is told. docker prints the message. None of them tells anything about hosts or others. */
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
    message:
      'your container host was paused while nobody used it, and could not be woken in time. Try again shortly',
  },
  'no-room': {
    status: '503 Service Unavailable',
    message:
      'your container host was put to sleep while nobody used it, and the machine has no memory left to wake it at present. Try again later',
  },
  'too-many': {
    status: '503 Service Unavailable',
    message: 'too many connections of this binding are open. Close some of them first',
  },
  'engine-unreachable': {
    status: '502 Bad Gateway',
    message: "your container host's engine does not answer: it may be restarting. Try again shortly",
  },
};

/** As much of a request as tells its method: HEAD has an answer without a body (RFC 9110, 9.3.2). */
const methodLength = 'HEAD '.length;

/**
 * Tells the client why it is refused, in the form in which it expects an engine's errors, and ends the
 * connection. The answer is sent once a request has begun: HTTP clients take an earlier one for a fault.
 * Nothing that the client sends goes anywhere. The caller bounds the time.
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
  // It is read to its end, though nobody wants it: a socket that is closed over unread bytes is reset, and
  // the reset may overtake the answer.
  client.on('data', (chunk: Buffer) => {
    if (answered) return;
    method += chunk.toString('latin1', 0, methodLength - method.length);
    if (method.length === methodLength) answer();
  });
  // It may have ended while nobody listened yet.
  if (client.readableEnded) answer();
  client.on('end', answer);
}
