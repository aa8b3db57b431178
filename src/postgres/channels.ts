/** The channels of LISTEN/NOTIFY. A payload is an id, and never a command or a fact: the receiver reads the row. */
export const channels = {
  /** An operation is due. Payload: its id. */
  operations: 'berth_operations',
  /** An operation has finished. Payload: its id. */
  finished: 'berth_finished',
  /** A host's power state is to change. Payload: its id. */
  power: 'berth_power',
  /** A binding, or its host, has changed. Payload: the binding's id. */
  bindings: 'berth_bindings',
  /** A gateway has acknowledged a revocation. Payload: the binding's id. */
  acknowledgements: 'berth_acknowledgements',
  /** A gateway has requested a certificate, or an api has answered. Payload: the request's id. */
  certificateRequests: 'berth_certificates',
  /** The passwords of a platform have changed. Payload: the platform's id. */
  platforms: 'berth_platforms',
  /** An operator has requested checks of hosts, or a release from quarantine. Payload: empty. */
  checks: 'berth_checks',
  /** An operator has requested the removal of a host that differs. Payload: its id. */
  differences: 'berth_differences',
  /** Another master key is current. Payload: its id. */
  masterKeys: 'berth_keys',
  /** Every api is to read its master key file again. Payload: the id of the new key in it. */
  masterKeyFile: 'berth_master_key_file',
  /** What a process has loaded has changed. Payload: the id of its row in `presences`. */
  presence: 'berth_presence',
  /** Another image is current. Payload: its version. */
  image: 'berth_image',
  /** The CAs, or the names in gateways' certificates, have changed. Payload: the id of a CA, or empty. */
  certificateAuthorities: 'berth_certificate_authorities',
} as const;

export type Channel = (typeof channels)[keyof typeof channels];
