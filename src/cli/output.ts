/** Writing to a terminal, file or pipe before the call returns, so that nothing is lost when the process ends. */
import { writeSync } from "node:fs";

export const STDOUT = 1;
export const STDERR = 2;

/** How often a full pipe is tried again before its reader is taken for dead; each try waits PIPE_WAIT_MS. */
const PIPE_TRIES = 200;
const PIPE_WAIT_MS = 5;

/** Gives up silently when nobody reads any more: a closed pipe must not end the replication. */
export function writeNow(target: typeof STDOUT | typeof STDERR, text: string): void {
  let rest: Uint8Array = new TextEncoder().encode(text);
  for (let tries = 0; rest.length > 0 && tries < PIPE_TRIES; tries++) {
    try {
      rest = rest.subarray(writeSync(target, rest));
      tries = 0;
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "EAGAIN")) return;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PIPE_WAIT_MS);
    }
  }
}
