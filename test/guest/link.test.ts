import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { agentPortName, guestLink } from '../../src/guest/link.ts';

const recipe = (file: string) => readFile(new URL(`../../image/${file}`, import.meta.url), 'utf8');

describe('guest image and link', () => {
  const { guestAddress, gatewayAddress, gatewayMac, prefixLength, enginePort } = guestLink;

  it('guest image: configures the addresses of the guest link', async () => {
    expect((await recipe('guest/etc/berth/network')).trim().split('\n')).toEqual([
      'link set dev lo up',
      'link set dev eth0 up',
      `address add ${guestAddress}/${prefixLength} dev eth0`,
      `route add default via ${gatewayAddress}`,
      `neighbour replace ${gatewayAddress} lladdr ${gatewayMac} dev eth0 nud permanent`,
    ]);
    expect(await recipe('build')).toContain(`echo 'nameserver ${gatewayAddress}' >"$tree/etc/resolv.conf"`);
  });

  it('guest image: the engine listens on the guest link, and only the link reaches it', async () => {
    expect(await recipe('guest/etc/systemd/system/docker.socket')).toContain(
      `\nListenStream=${guestAddress}:${enginePort}\n`,
    );
    expect(await recipe('guest/etc/berth/iptables')).toContain(
      `\n-A INPUT -p tcp -d ${guestAddress} --dport ${enginePort} ! -i eth0 -j REJECT`,
    );
  });

  it('guest image: the agent uses the port name that the host side expects', async () => {
    expect(await recipe('guest/usr/local/sbin/berth-agent')).toContain(`eq '${agentPortName}'`);
  });
});
