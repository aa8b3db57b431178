import { connect } from 'node:net';

/** Whether a process listens on a Unix socket. A socket file that a killed process left behind refuses connections. */
export function isListening(socketFile: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(socketFile);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => {
      resolve(false);
    });
  });
}
