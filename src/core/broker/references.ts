/** The instance that a request names, with the ids that platforms send beside it. */
export interface InstanceReference {
  readonly platformId: string;
  readonly instanceId: string;
  readonly serviceId: string | undefined;
  readonly planId: string | undefined;
}

export type BindingReference = InstanceReference & { readonly bindingId: string };
