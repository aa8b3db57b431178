import type {
  CertificateAuthorityRotation,
  CertificateAuthorityStore,
} from '../core/ports/certificate-authorities.ts';
import { refused } from '../core/errors.ts';
import type { Presences } from '../core/ports/presence.ts';
import { longestChain } from './ca.ts';
import type { LoadedCas } from './loaded-cas.ts';

/** How long to wait until every gateway uses a new CA: longer than a dead gateway counts as alive. Milliseconds. */
const gatewaysTimeoutMs = 25_000;

/** Replaces a CA in two phases: every gateway trusts or uses the new one before it signs for the first app. */
export function createCaRotation(deps: {
  store: CertificateAuthorityStore;
  cas: LoadedCas;
  presences: Pick<Presences, 'waitForAll'>;
}): CertificateAuthorityRotation {
  const { store, cas, presences } = deps;
  return {
    list: () => store.list(),

    async rotate(name) {
      await cas.load();
      if (name === 'server' && cas.crossChain(cas.current('server')).length >= longestChain) {
        throw refused.conflict(
          `Live bindings still trust ${longestChain} former server CAs: rotate those bindings first.`,
        );
      }
      // A call that was refused or killed has left the next CA: continue with it.
      if (cas.next(name) === undefined) {
        await store.insertNext(name, await cas.create(name, cas.current(name)));
        await cas.load();
      }
      const next = cas.next(name);
      if (next === undefined) throw refused.conflict('Another rotation has just ended: look at the list.');
      if (!(await presences.waitForAll('gateway', next.id, gatewaysTimeoutMs))) {
        throw refused.conflict(
          'A gateway has not loaded the new CA: look at its log, and try again. The former CA continues to sign.',
        );
      }
      await store.promote(name, next.id);
      await cas.load();
      return store.list();
    },
  };
}
