/** Whether setup/run has installed QEMU's and the firewall's tools, which a few unit tests need too. */
export const hasVmTools = process.getuid?.() === 0 && process.env['BERTH_HYPERVISOR'] !== 'simulated';
