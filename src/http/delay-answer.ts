import type { Response } from 'express';

/**
 * Delays the body of an answer until `act` has settled. Status and headers are fixed when the handler answers, so
 * neither a late handler nor an error can change the answer after that.
 */
export function delayAnswer(response: Response, act: () => Promise<void>): void {
  const end = response.end.bind(response) as (...values: unknown[]) => Response;
  let answered = false;
  const endLater = (...values: unknown[]) => {
    if (!answered) {
      answered = true;
      const { statusCode } = response;
      // Sets `headersSent`; the headers leave together with the body.
      response.writeHead(statusCode);
      void act().finally(() => {
        // For the request log: a late handler may have set another status.
        response.statusCode = statusCode;
        end(...values);
      });
    }
    return response;
  };
  response.end = endLater as typeof response.end;
}
