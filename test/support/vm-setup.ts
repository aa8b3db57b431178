import { makeHosts } from '../isolation/support/hosts.ts';

/** Builds the guest image, the template and the empty disks once, before two test files at a time need them. */
export default async function setup(): Promise<void> {
  const hosts = await makeHosts();
  await hosts.close();
}
