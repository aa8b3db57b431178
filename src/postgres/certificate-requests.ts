import { randomUUID } from 'node:crypto';
import type { Knex } from 'knex';
import { channels } from './channels.ts';
import type { Listener } from './listener.ts';
import { notify } from './notify.ts';
import { waitFor } from './wait.ts';

interface CertificateRequestRow {
  id: string;
  request: string;
  certificate: string | null;
  ca: string | null;
}

/** A gateway's certificate with the chain that leads from it, PEM, and the id of the authority that signed it. */
export interface SignedRequest {
  readonly chain: string;
  readonly authority: string;
}

/**
 * Asks for a certificate, as a gateway does for its own: its private key stays in its process.
 * @param requestPem PKCS#10.
 * @param forMs how long to wait for an api to answer, in milliseconds.
 * @throws Error where none answered.
 */
export async function requestCertificate(
  database: Knex,
  listener: Listener,
  requestPem: string,
  forMs: number,
): Promise<SignedRequest> {
  const id = randomUUID();
  await database<CertificateRequestRow>('certificate_requests').insert({ id, request: requestPem });
  try {
    await notify(database, channels.certificates, id);
    const signed = await waitFor(
      listener,
      channels.certificates,
      (heard) => heard === id,
      async () => {
        const row = await database<CertificateRequestRow>('certificate_requests').where({ id }).first();
        if (row === undefined || row.certificate === null || row.ca === null) return undefined;
        return { chain: row.certificate, authority: row.ca };
      },
      forMs,
    );
    if (signed === undefined) throw new Error('no api has signed the certificate request: does one run?');
    return signed;
  } finally {
    await database<CertificateRequestRow>('certificate_requests').where({ id }).delete();
  }
}

/**
 * Answers requests for certificates, those that wait already and those to come.
 * @param sign makes the certificate for a PKCS#10 request.
 * @returns what ends it.
 */
export function answerCertificateRequests(
  database: Knex,
  listener: Listener,
  sign: (requestPem: string) => Promise<SignedRequest>,
  onError: (error: unknown) => void,
): () => void {
  const answerOne = async ({ id, request }: CertificateRequestRow) => {
    const { chain, authority } = await sign(request);
    const answered = await database<CertificateRequestRow>('certificate_requests')
      .where({ id, certificate: null })
      .update({ certificate: chain, ca: authority });
    if (answered === 1) await notify(database, channels.certificates, id);
  };
  const answer = async () => {
    const waiting = await database<CertificateRequestRow>('certificate_requests').whereNull('certificate');
    // One that can't be signed keeps no other gateway waiting.
    for (const one of waiting) await answerOne(one).catch(onError);
  };
  const run = () => {
    answer().catch(onError);
  };
  const ends = [listener.on(channels.certificates, run), listener.onReconnected(run)];
  run();
  return () => {
    for (const end of ends) end();
  };
}

/** Forgets requests of gateways that died while they waited: none waits for so long. */
export async function forgetDeadRequests(database: Knex): Promise<void> {
  await database('certificate_requests')
    .where('created_at', '<', database.raw(`clock_timestamp() - interval '2 minutes'`))
    .delete();
}
