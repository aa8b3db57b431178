import { randomBytes } from 'node:crypto';
import { refused } from './errors.ts';
import {
  credentialDigest,
  type PlatformCredential,
  type Platforms,
  type PlatformStore,
} from './ports/platforms.ts';

const namePattern = /^[a-z0-9][a-z0-9._-]{0,49}$/;

/** Platforms as operators see and change them. A platform's username is its name. */
export function createPlatforms(store: PlatformStore): Platforms {
  return {
    list: () => store.list(),

    async create(name) {
      if (!namePattern.test(name)) {
        throw refused.badRequest(
          'name: must have up to 50 characters out of a-z, 0-9, ".", "_" and "-", and begin with a letter or digit.',
        );
      }
      const credential = newCredential(name);
      if (!(await store.insert(name, digestOf(credential)))) {
        throw refused.conflict(`name: there is a platform ${name} already.`);
      }
      return credential;
    },

    async addPassword(name) {
      const credential = newCredential(name);
      // Postgres refuses a NUL, so a name that can't exist is not looked up.
      const outcome = namePattern.test(name)
        ? await store.addPassword(name, digestOf(credential))
        : 'not found';
      if (outcome === 'not found') throw noPlatform(name);
      if (outcome === 'two already') {
        throw refused.conflict(
          `Platform ${name} has two valid passwords already. Retire the older one first.`,
        );
      }
      return credential;
    },

    async retirePassword(name) {
      const outcome = namePattern.test(name) ? await store.deleteOlderPassword(name) : 'not found';
      if (outcome === 'not found') throw noPlatform(name);
      if (outcome === 'only one') {
        throw refused.conflict(
          `Platform ${name} would be left without a password. Add one first, and give it to the platform.`,
        );
      }
    },
  };
}

const newCredential = (username: string): PlatformCredential => ({
  username,
  password: randomBytes(32).toString('base64url'),
});
const digestOf = ({ username, password }: PlatformCredential) => credentialDigest(username, password);
const noPlatform = (name: string) => refused.notFound(`There is no platform ${name.slice(0, 60)}.`);
