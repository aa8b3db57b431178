import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { createCertificateAuthority } from '../../src/certificates/ca.ts';
import { issueClientCertificate } from '../../src/certificates/client-certificate.ts';
import { createServerRequest, signServerRequest } from '../../src/certificates/server-certificate.ts';

/** Sends text and returns everything that is received until the server closes the connection. */
export async function exchange(
  port: number,
  sent: string,
  onOpen: (socket: Socket) => void = () => undefined,
) {
  const socket = connect(port, '127.0.0.1');
  let received = '';
  socket.setEncoding('utf8').on('data', (text: string) => (received += text));
  socket.on('error', () => undefined);
  socket.on('connect', () => {
    socket.write(sent);
    onOpen(socket);
  });
  await once(socket, 'close');
  return received;
}
/** A CA, a server certificate of it for 127.0.0.1 and a client certificate. */
export async function serverCertificates() {
  const authority = await createCertificateAuthority({ commonName: 'test', validForDays: 10 });
  const { requestPem, privateKeyPem } = await createServerRequest('test');
  const notAfter = new Date(Date.now() + 86_400_000);
  const cert = await signServerRequest(authority, requestPem, { hosts: ['127.0.0.1'], notAfter });
  const client = await issueClientCertificate(authority, { commonName: 'platform', notAfter });
  return { authority, cert, key: privateKeyPem, client };
}
