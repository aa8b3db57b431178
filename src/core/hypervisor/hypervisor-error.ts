/** A driver could not do what was asked. The message is for operators, and includes what the tool printed. */
export class HypervisorError extends Error {
  override readonly name: string = 'HypervisorError';
}
