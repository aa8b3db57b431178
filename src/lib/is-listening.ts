import { connect } from 'node:net';
import { settleWithin } from './settle-within.ts';

const timeoutMs = 5_000;

/** Whether a process listens on a Unix socket. A socket file that a killed process left behind refuses connections. */
export function isListening(socketFile: string): Promise<boolean> {
  return settleWithin<boolean>(
    timeoutMs,
    () => false,
    (settle) => {
      const socket = connect(socketFile);
      socket.on('connect', () => {
        settle.resolve(true);
      });
      socket.on('error', () => {
        settle.resolve(false);
      });
      return () => {
        socket.destroy();
      };
    },
  );
}
