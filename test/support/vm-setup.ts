import { makeHosts } from '../isolation/support/hosts.ts';
import { testImage } from './vm-cache.ts';

/** Builds the guest images, the template and the empty disks once, before two test files at a time need them. */
export default async function setup(): Promise<void> {
  const [hosts] = await Promise.all([makeHosts(), testImage('bookworm')]);
  await hosts.close();
}
