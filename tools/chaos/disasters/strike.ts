import { errorMessage } from '../../../src/lib/error-message.ts';
import { whenQuiet } from '../drill.ts';
import type { Disaster, Scene } from './disaster.ts';

/** @returns descriptions of all violations, during the strike and after it. */
export async function strike(disaster: Disaster, scene: Scene): Promise<readonly string[]> {
  const { site, residents, patienceMs } = scene;
  const stopWatching = residents.watchRevoked();
  const broken: string[] = await disaster.strike(scene).then(
    () => [],
    (error: unknown) => [errorMessage(error)],
  );
  broken.push(...(await stopWatching()));
  // What is broken already need not be waited for.
  if (broken.length === 0) {
    await Promise.all(site.processes.map((one) => one.ready()));
    broken.push(...(await whenQuiet(site, patienceMs)), ...(await residents.violations()));
  }
  return broken.map((violation) => `${disaster.name}: ${violation}`);
}
