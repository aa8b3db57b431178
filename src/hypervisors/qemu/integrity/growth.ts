import { limitFileNames } from '../launch/cgroups.ts';
import type { Facts } from './manifest.ts';

/** The lines that a host's growth changes, by section; a process's largest file is in `/proc/PID/limits`. */
const changed: Partial<Record<keyof Facts, (line: string) => boolean>> = {
  rlimits: (line) => line.startsWith('Max file size') || line.startsWith('oom_score_adj '),
  cgroup: (line) => limitFileNames.some((name) => line.startsWith(`${name} `)),
  devices: (line) => line.startsWith('added memory: '),
};

/** The recorded facts with what the host has grown by; of all else, those on record. */
export function withGrowth(recorded: Facts, found: Facts): Facts {
  const sections = Object.entries(changed) as [keyof Facts, (line: string) => boolean][];
  return {
    ...recorded,
    ...Object.fromEntries(
      sections.map(([section, isChanged]) => {
        const kept = (recorded[section] ?? []).filter((line) => !isChanged(line));
        const now = (found[section] ?? []).filter(isChanged);
        return [section, inOrderOf(found[section] ?? [], [...kept, ...now])];
      }),
    ),
  };
}

/** Lines that were found come in the order in which they were found: it is compared too. */
function inOrderOf(found: readonly string[], lines: readonly string[]): readonly string[] {
  const place = (line: string) => {
    const index = found.indexOf(line);
    return index === -1 ? found.length : index;
  };
  return lines.toSorted((one, other) => place(one) - place(other));
}
