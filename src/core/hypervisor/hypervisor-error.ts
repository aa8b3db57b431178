/** A driver could not do what was asked. The message is for operators, and includes what the tool printed. */
export class HypervisorError extends Error {
  override readonly name: string = 'HypervisorError';
  /** The message for platforms and tenants: without what a tool printed, which may tell about the node. */
  readonly summary: string;

  constructor(message: string, { summary = message, ...options }: ErrorOptions & { summary?: string } = {}) {
    super(message, options);
    this.summary = summary;
  }
}
