import type { Logger } from '../../lib/logger.ts';
import type { Catalog } from '../catalog/catalog.ts';
import type { AdmissionRules } from '../model/node-memory.ts';
import type { PublicAddress } from '../model/public-address.ts';
import type { CertificateIssuer } from '../ports/certificate-issuer.ts';
import type { OperationWaiter } from '../ports/operation-waiter.ts';
import type { RenderCredentials } from '../ports/render-credentials.ts';
import type { Revocations } from '../ports/revocations.ts';
import type { Store } from '../ports/store.ts';
import type { Vault } from '../ports/vault.ts';
import type { ParameterRules } from './parameter-rules.ts';

interface BrokerDeps {
  readonly catalog: Catalog;
  readonly rules: ParameterRules;
  readonly store: Store;
  readonly logger: Logger;
}

/** What the verbs on instances use. */
export interface InstanceDeps extends BrokerDeps {
  readonly waiter: OperationWaiter;
  /** How long a request waits for its operation, in milliseconds; 0 answers 202 immediately. */
  readonly syncWaitMs: number;
  /** Put before every description of an operation, for example that hosts are simulated. */
  readonly notice: string;
  /** The version of the image from which new hosts are created; undefined until a worker has reported it. */
  readonly imageVersion: () => string | undefined;
  readonly admission: AdmissionRules;
  readonly diskAdmission: AdmissionRules;
}

/** What the verbs on bindings use. */
export interface BindingDeps extends BrokerDeps {
  readonly issuer: CertificateIssuer;
  readonly vault: Vault;
  readonly revocations: Revocations;
  readonly address: PublicAddress;
  readonly renderCredentials: RenderCredentials;
}
