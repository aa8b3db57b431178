import { randomUUID } from 'node:crypto';
import type { Knex } from 'knex';
import type { CertificateRequester, CertificateRequestQueue } from '../core/ports/certificate-requests.ts';
import { channels } from './channels.ts';
import { type Listener, onChange } from './listener.ts';
import { notify } from './notify.ts';
import { waitForNotification } from './wait.ts';

interface CertificateRequestRow {
  id: string;
  request: string;
  certificate: string | null;
  ca: string | null;
}

/** The gateway's side: asks by a row and a notification, and reads the answer from the row. */
export function createCertificateRequester(database: Knex, listener: Listener): CertificateRequester {
  const table = () => database<CertificateRequestRow>('certificate_requests');
  return {
    async request(requestPem, timeoutMs) {
      const id = randomUUID();
      await table().insert({ id, request: requestPem });
      try {
        await notify(database, channels.certificateRequests, id);
        const signed = await waitForNotification(
          listener,
          channels.certificateRequests,
          (notified) => notified === id,
          async () => {
            const row = await table().where({ id }).first();
            if (row === undefined || row.certificate === null || row.ca === null) return undefined;
            return { chain: row.certificate, ca: row.ca };
          },
          timeoutMs,
        );
        if (signed === undefined) {
          throw new Error('No api has signed the certificate request: check that an api runs');
        }
        return signed;
      } finally {
        await table().where({ id }).delete();
      }
    },
  };
}

/** The api's side. */
export function createCertificateRequestQueue(database: Knex, listener: Listener): CertificateRequestQueue {
  const table = () => database<CertificateRequestRow>('certificate_requests');
  return {
    answer(sign, onError) {
      const answerOne = async ({ id, request }: CertificateRequestRow) => {
        const { chain, ca } = await sign(request);
        const answered = await table().where({ id, certificate: null }).update({ certificate: chain, ca });
        if (answered === 1) await notify(database, channels.certificateRequests, id);
      };
      const answerAll = async () => {
        // A request that can't be signed must not block those of other gateways.
        for (const row of await table().whereNull('certificate')) await answerOne(row).catch(onError);
      };
      const run = () => {
        answerAll().catch(onError);
      };
      const unsubscribe = onChange(listener, channels.certificateRequests, run);
      run();
      return unsubscribe;
    },

    async deleteAbandoned() {
      await table()
        .where('created_at', '<', database.raw(`clock_timestamp() - interval '2 minutes'`))
        .delete();
    },
  };
}
