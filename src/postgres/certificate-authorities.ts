import type { Knex } from 'knex';
import type {
  CertificateAuthorityName,
  CertificateAuthorityOverview,
  CertificateAuthorityStore,
  GatewayCertificateAuthorities,
  NewCertificateAuthority,
  StoredCertificateAuthority,
} from '../core/ports/certificate-authorities.ts';
import { expiryOf } from '../lib/certificate-expiry.ts';
import { channels } from './channels.ts';
import { listGatewayNames } from './gateway-names.ts';
import { type Listener, onChange } from './listener.ts';
import { notify } from './notify.ts';

interface CertificateAuthorityRow {
  id: string;
  name: CertificateAuthorityName;
  state: StoredCertificateAuthority['state'];
  since: Date;
  predecessor: string | null;
  certificate: string;
  cross_certificate: string | null;
  sealed_key: Buffer | null;
}

const liveBindingsSql = `(SELECT count(*) FROM bindings WHERE bindings.state = 'live' AND expires_at > clock_timestamp()
  AND CASE certificate_authorities.name WHEN 'client' THEN client_ca ELSE server_ca END = certificate_authorities.id)`;

/** The CAs in Postgres. Every change notifies the apis and gateways. */
export function createCertificateAuthorityStore(
  database: Knex,
  listener: Listener,
): CertificateAuthorityStore {
  const table = () => database<CertificateAuthorityRow>('certificate_authorities');

  async function insert(
    name: CertificateAuthorityName,
    state: 'next' | 'current',
    made: NewCertificateAuthority,
  ): Promise<void> {
    await database.transaction(async (transaction) => {
      await transaction('certificate_authorities')
        .insert({
          id: made.id,
          name,
          state,
          predecessor: made.predecessor ?? null,
          certificate: made.certificatePem,
          cross_certificate: made.crossCertificatePem ?? null,
          sealed_key: made.sealedKey,
        })
        .onConflict(transaction.raw(`(name, state) WHERE state IN ('next', 'current')`))
        .ignore();
      await notify(transaction, channels.certificateAuthorities, made.id);
    });
  }

  return {
    trusted: () => trustedCertificateAuthorities(database),

    async ensure(name, make) {
      const exists = await table().where({ name }).first('id');
      if (exists === undefined) await insert(name, 'current', await make());
    },

    insertNext: (name, made) => insert(name, 'next', made),

    async promote(name, nextId) {
      await database.transaction(async (transaction) => {
        const since = transaction.raw('clock_timestamp()');
        await transaction('certificate_authorities')
          .where({ name, state: 'current' })
          .update({ state: 'retiring', sealed_key: null, since });
        await transaction('certificate_authorities')
          .where({ id: nextId, state: 'next' })
          .update({ state: 'current', since });
        await notify(transaction, channels.certificateAuthorities, nextId);
      });
    },

    async retire(settleMs) {
      const { rows } = await database.raw<{ rows: { id: string }[] }>(
        `UPDATE certificate_authorities SET state = 'retired', since = clock_timestamp()
         WHERE state = 'retiring' AND since < clock_timestamp() - ? * interval '1 millisecond' AND ${liveBindingsSql} = 0
         RETURNING id`,
        [settleMs],
      );
      for (const { id } of rows) await notify(database, channels.certificateAuthorities, id);
    },

    async list() {
      const { rows } = await database.raw<{ rows: (CertificateAuthorityRow & { live: number })[] }>(
        `SELECT id, name, state, since, certificate, ${liveBindingsSql}::integer AS live FROM certificate_authorities ORDER BY name, since DESC LIMIT 100`,
      );
      return rows.map(({ id, name, state, since, certificate, live }): CertificateAuthorityOverview => ({
        ...{ id, name, state, since },
        expiresAt: expiryOf(certificate),
        liveBindings: live,
      }));
    },

    onChange: (callback) => onChange(listener, channels.certificateAuthorities, callback),
  };
}

/** Every CA that is trusted, the oldest first. */
export async function trustedCertificateAuthorities(
  database: Knex,
): Promise<readonly StoredCertificateAuthority[]> {
  const rows = await database<CertificateAuthorityRow>('certificate_authorities')
    .whereNot({ state: 'retired' })
    .orderBy('since');
  return rows.map((row) => ({
    id: row.id,
    name: row.name,
    state: row.state,
    predecessor: row.predecessor ?? undefined,
    certificatePem: row.certificate,
    crossCertificatePem: row.cross_certificate ?? undefined,
    sealedKey: row.sealed_key ?? undefined,
  }));
}

/** The CAs as the gateway's database role may read them. */
export function createGatewayCertificateAuthorities(
  database: Knex,
  listener: Listener,
): GatewayCertificateAuthorities {
  return {
    async read() {
      const rows = await database<CertificateAuthorityRow>('certificate_authorities')
        .whereNot({ state: 'retired' })
        .select('id', 'name', 'state', 'certificate');
      const servers = rows.filter(({ name }) => name === 'server');
      const server =
        servers.find(({ state }) => state === 'next') ?? servers.find(({ state }) => state === 'current');
      return {
        clients: rows
          .filter(({ name }) => name === 'client')
          .map(({ id, certificate }) => ({ id, certificatePem: certificate })),
        server: server?.id,
        names: await listGatewayNames(database),
      };
    },

    onChange: (callback) => onChange(listener, channels.certificateAuthorities, callback),
  };
}
