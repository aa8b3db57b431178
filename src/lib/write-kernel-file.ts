import { writeFile } from 'node:fs/promises';

/** Writes to a file by which the kernel is set, below /proc or /sys: it takes the text at once and keeps none of it. */
export const writeKernelFile = (file: string, text: string): Promise<void> => writeFile(file, text);
