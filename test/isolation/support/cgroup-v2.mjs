// Runs in a guest, whose kernel has cgroup v2 only; prints its findings as JSON.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access } from 'node:fs/promises';
import { stdout } from 'node:process';
import { openCgroups } from './hypervisors/qemu/launch/cgroups.js';

const shape = { vcpus: 2, memoryMib: 768, diskGib: 4 };
const found = {};
const cgroups = await openCgroups('cafe');
const folders = await cgroups.make('vm', shape);
found.folders = folders;
found.limits = await cgroups.limits('vm');
found.emptyAtFirst = await cgroups.processes('vm');

// Like berth-launch: joins all groups first.
const bomb = `for group in ${folders.join(' ')}; do echo $$ > $group/cgroup.procs; done
  n=0; while [ $n -lt 400 ]; do sleep 1000 & n=$((n + 1)); done; echo all`;
const child = spawn('/bin/busybox', ['sh', '-c', bomb], { stdio: ['ignore', 'pipe', 'ignore'] });
let printed = '';
child.stdout.on('data', (text) => (printed += text));
await once(child, 'exit');
found.printed = printed;
found.processes = (await cgroups.processes('vm')).length;

// A second start of the worker while hosts exist.
const later = await openCgroups('cafe');
await later.kill('vm');
found.afterKill = await later.processes('vm');
await later.remove('vm');
await later.remove('vm');
found.gone = await Promise.all(
  folders.map((folder) =>
    access(folder).then(
      () => false,
      () => true,
    ),
  ),
);
stdout.write(JSON.stringify(found));
