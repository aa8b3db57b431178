/** The X.509 library, which wants its metadata polyfill loaded before it. */
import 'reflect-metadata';

export * from '@peculiar/x509';
