/** The wake-up channels of LISTEN/NOTIFY. A payload is an id and never a truth: who hears one reads the row. */
export const channels = {
  /** An operation is due. Payload: its id. */
  operations: 'berth_operations',
  /** An operation has finished. Payload: its id. */
  finished: 'berth_finished',
  /** A host is to be woken or put to sleep. Payload: its id. */
  power: 'berth_power',
  /** A binding, or its host, has changed. Payload: the binding's id. */
  bindings: 'berth_bindings',
  /** A gateway has acknowledged a revocation. Payload: the binding's id. */
  acknowledgements: 'berth_acknowledgements',
  /** A gateway asks for a certificate, or has been given one. Payload: the request's id. */
  certificates: 'berth_certificates',
  /** The passwords of a platform have changed. Payload: the platform's id. */
  platforms: 'berth_platforms',
  /** Somebody wants hosts to be checked. No payload. */
  checks: 'berth_checks',
  /** Which master key is sealed with, or what a process holds, has changed. Payload: none of meaning. */
  keys: 'berth_keys',
  /** The certificate authorities have changed. Payload: the id of one. */
  authorities: 'berth_certificate_authorities',
} as const;

export type Channel = (typeof channels)[keyof typeof channels];
