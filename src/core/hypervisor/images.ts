/** Debian releases that an image can consist of; the first one is the default. */
export const imageSuites = ['trixie', 'bookworm'] as const;

export type ImageSuite = (typeof imageSuites)[number];

/** The image that new hosts get. */
export interface Images {
  /** Its version (Semantic Versioning 2.0); undefined while none is installed: no host can be made then. */
  imageVersion(): string | undefined;

  /**
   * Installs the image that belongs to this version of Berth. If it has to be built first, that takes minutes. It becomes the
   * current one at once if there is no other, or no plan is restored from the template; otherwise when its template is made
   * ({@link Templates.makeTemplate}), and new hosts get the former image until then. Existing hosts keep theirs.
   * @param report receives the progress as text for people.
   * @throws HypervisorError if it can't be built; the former one stays current.
   */
  installImage(report: (progress: string) => void, signal: AbortSignal): Promise<void>;
}
