import { expect, it } from 'vitest';
import { processorOf, resolveVmType } from '../../../../src/hypervisors/qemu/memory/memory-key.ts';

const help = `
pc                   Standard PC (i440FX, 1996) (alias of pc-i440fx-7.2)
pc-q35-7.1           Standard PC (Q35 + ICH9, 2009)
q35                  Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-7.2)
pc-q35-7.2           Standard PC (Q35 + ICH9, 2009)
`;

it('VM type: an alias is resolved to the version that it means', () => {
  expect(resolveVmType(help, 'q35')).toBe('pc-q35-7.2');
  expect(resolveVmType(help, 'pc-q35-7.1')).toBe('pc-q35-7.1');
  expect(() => resolveVmType(help, 'q36')).toThrow('QEMU does not know the VM type q36');
});

it("processor: the first one's model and microcode", () => {
  const block = (microcode: string) =>
    [
      ...['processor\t: 0', 'vendor_id\t: AuthenticAMD', 'cpu family\t: 25', 'model\t\t: 17'],
      ...['model name\t: AMD EPYC', 'stepping\t: 1', `microcode\t: ${microcode}`, 'cpu MHz\t\t: 2596.144'],
    ].join('\n');
  expect(processorOf(`${block('0x1000065')}\n\n${block('0x2')}\n`)).toBe(
    'AuthenticAMD, AMD EPYC, 25, 17, 1, microcode 0x1000065',
  );
});
