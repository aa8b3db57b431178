import { expect, it } from 'vitest';
import { isAboutTemplate } from '../../tools/lib/residue.ts';

it('residue: lines about a template that is being made are told from lines about hosts', () => {
  const template = [
    'process 17293: /usr/bin/qemu-system-x86_64 -name berth-164a-template -machine q35',
    'ip: berth-164a-0 (id: 0)',
    'ip: bh164as0@if2     UP             da:e9:36:52:4a:53',
    'cgroup /sys/fs/cgroup/memory/berth-164a/template',
  ];
  const host = [
    'process 1: /usr/bin/qemu-system-x86_64 -name berth-164a-0b6d2a54-3f0e -machine q35',
    'ip: berth-164a-10 (id: 0)',
    'ip: bh164as10@if2     UP',
    'cgroup /sys/fs/cgroup/memory/berth-164a/0b6d2a54-3f0e-4c0e-8a53-1d1f4c1f9a01',
    'nft: elements = { 20000 : 10.209.0.3 }',
  ];
  expect(template.filter((line) => !isAboutTemplate(line))).toEqual([]);
  expect(host.filter(isAboutTemplate)).toEqual([]);
});
