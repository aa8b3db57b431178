/**
 * The private link between a guest and its own network namespace. The values are frozen into the guest
 * image and into every template, so they are the same in every host: each namespace holds one link only.
 * The range is carrier-grade NAT space (RFC 6598), which Docker's default networks never use.
 */
export const guestLink = {
  /** The guest's only address. */
  guestAddress: '100.127.255.2',
  /** The namespace's end: the guest's default gateway and its DNS server. */
  gatewayAddress: '100.127.255.1',
  prefixLength: 30,
  /** The guest's only MAC address. */
  guestMac: '52:54:00:be:27:02',
  gatewayMac: '52:54:00:be:27:01',
  /** Where dockerd listens, without TLS: only the gateway's user can reach it. */
  enginePort: 2375,
} as const;

/** Name of the virtio-serial port on which the guest's agent listens. */
export const agentPortName = 'berth.agent';
