/** The Runtime of a real process: wall clock, system randomness, file-system events. */
import { randomBytes } from "node:crypto";
import type { Log, Runtime } from "../runtime.ts";
import { watchDatabase } from "./file_watcher.ts";

export function systemRuntime(log: Log): Runtime {
  return {
    log,
    random: { bytes: (length) => randomBytes(length) },
    clock: { now: () => performance.now(), sleep },
    watch: watchDatabase,
  };
}

/** `ms` ≤ 0 lets other events pass, without the millisecond that a timer takes at least. */
function sleep(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.reject(signal.reason);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  if (ms <= 0) {
    setImmediate(resolve);
    return promise;
  }
  const abort = () => {
    clearTimeout(timer);
    reject(signal.reason);
  };
  const timer = setTimeout(() => {
    signal.removeEventListener("abort", abort);
    resolve();
  }, ms);
  signal.addEventListener("abort", abort, { once: true });
  return promise;
}
