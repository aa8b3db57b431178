import { deprovision, type DeprovisionRequest } from './deprovision.ts';
import type { InstanceDeps } from './deps.ts';
import { fetchInstance } from './fetch-instance.ts';
import { type InstanceView, viewInstance } from './instance-view.ts';
import { lastOperation, type LastOperationRequest, type OperationReport } from './last-operation.ts';
import { provision, type ProvisionRequest } from './provision.ts';
import type { InstanceReference } from './references.ts';
import { update } from './update.ts';
import type { UpdateRequest } from './update-request.ts';
import { waitBriefly, type WorkOutcome } from './wait-briefly.ts';

/** What platforms do with instances (OSB 2.17: provisioning, updating, fetching, polling, deprovisioning). */
export interface Instances {
  provision(request: ProvisionRequest): Promise<WorkOutcome & InstanceView>;
  deprovision(request: DeprovisionRequest): Promise<WorkOutcome>;
  /** A change that leaves the host as it is takes effect immediately; every other change is an operation. */
  update(request: UpdateRequest): Promise<WorkOutcome & InstanceView>;
  fetch(request: InstanceReference): Promise<InstanceView>;
  lastOperation(request: LastOperationRequest): Promise<OperationReport>;
}

export function createInstances(deps: InstanceDeps): Instances {
  return {
    async provision(request) {
      const outcome = await waitBriefly(deps, await provision(deps, request));
      return { ...outcome, ...(await viewInstance(deps.store, request)) };
    },
    async update(request) {
      const outcome = await waitBriefly(deps, await update(deps, request));
      return { ...outcome, ...(await viewInstance(deps.store, request)) };
    },
    deprovision: async (request) => waitBriefly(deps, await deprovision(deps, request)),
    fetch: (request) => fetchInstance(deps, request),
    lastOperation: (request) => lastOperation(deps, request),
  };
}
