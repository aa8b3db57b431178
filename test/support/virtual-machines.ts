import { makeHosts } from '../isolation/support/hosts.ts';

/** The guest image, the template and the empty disks are there before two files at a time ask for them. */
export default async function setup(): Promise<void> {
  const hosts = await makeHosts();
  await hosts.close();
}
