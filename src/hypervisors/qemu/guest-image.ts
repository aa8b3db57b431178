/** The guest image: what every host boots, named by the digest of its recipe and package versions. */
export interface GuestImage {
  /** SHA-256, lower-case hexadecimal, over the recipe's files and the versions of all packages in it. */
  readonly digest: string;
  /** Folder that holds the files below and `image.json`. */
  readonly directory: string;
  readonly kernel: string;
  readonly initrd: string;
  /** squashfs with its dm-verity hash tree appended. */
  readonly rootfs: string;
  /** dm-verity root hash, lower-case hexadecimal; goes onto the kernel command line. */
  readonly rootHash: string;
  /** Kernel command line without what depends on the host. */
  readonly commandLine: string;
}
