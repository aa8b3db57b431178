// A worker that acts on a host and is killed half-way: SIGKILL before the change to the node whose number is the last
// argument. Exits with 0 if there are fewer changes.
import childProcess from 'node:child_process';
import fs from 'node:fs/promises';
import { Socket } from 'node:net';
import { syncBuiltinESMExports } from 'node:module';
import process, { argv, pid, stdout } from 'node:process';

const [, , driver, options, act, subject, killBefore] = argv;
let left = Infinity;
const signal = process.kill.bind(process);
const counted = (object, name) => {
  const act = object[name].bind(object);
  object[name] = (...args) => {
    left -= 1;
    if (left <= 0) signal(pid, 'SIGKILL');
    return act(...args);
  };
};
for (const name of ['rename', 'rm', 'rmdir', 'truncate', 'unlink', 'writeFile']) counted(fs, name);
counted(childProcess, 'spawn');
counted(process, 'kill');
// What a growth changes is changed by QEMU and the guest.
if (act === 'grow') {
  const { write } = Socket.prototype;
  Socket.prototype.write = function (...args) {
    left -= 1;
    if (left <= 0) signal(pid, 'SIGKILL');
    return write.apply(this, args);
  };
}
syncBuiltinESMExports();

const { createQemuHypervisor } = await import(driver);
const silent = { debug() {}, info() {}, warn() {}, error() {} };
const hypervisor = await createQemuHypervisor({ ...JSON.parse(options), logger: silent });
left = Number(killBefore);
await hypervisor[act](JSON.parse(subject));
left = Infinity;
await hypervisor.close();
stdout.write('done');
