/**
 * The private link between a guest and its network namespace. The values are part of the guest image and of every
 * template, so every host has the same ones; each namespace contains one such link only. The range is carrier-grade NAT
 * space (RFC 6598), which Docker's default networks never use.
 */
export const guestLink = {
  /** The guest's only address. */
  guestAddress: '100.127.255.2',
  /** The namespace's end: the guest's default gateway and DNS server. */
  gatewayAddress: '100.127.255.1',
  prefixLength: 30,
  /** The guest's only MAC address. */
  guestMac: '52:54:00:be:27:02',
  gatewayMac: '52:54:00:be:27:01',
  /** dockerd listens here without TLS; only the gateway's user can reach it. */
  enginePort: 2375,
} as const;

/** Name of the virtio-serial port on which the guest's agent listens. */
export const agentPortName = 'berth.agent';
