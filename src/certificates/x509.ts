/** The X.509 library. It needs its metadata polyfill to be loaded first. */
import 'reflect-metadata';

export * from '@peculiar/x509';
