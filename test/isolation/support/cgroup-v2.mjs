// Runs in a guest, whose kernel has control groups of version 2 only: what is found there, as JSON.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access } from 'node:fs/promises';
import { stdout } from 'node:process';
import { openCgroups } from './hypervisors/qemu/cgroup.js';

const shape = { vcpus: 2, memoryMib: 768, diskGib: 4 };
const found = {};
const cgroups = await openCgroups('cafe');
const folders = await cgroups.make('machine', shape);
found.folders = folders;
found.limits = await cgroups.limits('machine');
found.emptyAtFirst = await cgroups.processes('machine');

// As berth-launch does: in all of them before anything is begun.
const bomb = `for group in ${folders.join(' ')}; do echo $$ > $group/cgroup.procs; done
  n=0; while [ $n -lt 400 ]; do sleep 1000 & n=$((n + 1)); done; echo all`;
const child = spawn('/bin/busybox', ['sh', '-c', bomb], { stdio: ['ignore', 'pipe', 'ignore'] });
let printed = '';
child.stdout.on('data', (text) => (printed += text));
await once(child, 'exit');
found.printed = printed;
found.processes = (await cgroups.processes('machine')).length;

// A second start of the worker, while there are hosts.
const later = await openCgroups('cafe');
await later.kill('machine');
found.afterKill = await later.processes('machine');
await later.remove('machine');
await later.remove('machine');
found.gone = await Promise.all(
  folders.map((folder) =>
    access(folder).then(
      () => false,
      () => true,
    ),
  ),
);
stdout.write(JSON.stringify(found));
