/** File-system events of a directory: of the whole directory, because SQLite makes and removes files in it. */
import { watch } from "node:fs";
import type { Watcher } from "../watcher.ts";

export function watchDirectory(directory: string): Watcher {
  let seen = false;
  let waiting: (() => void) | undefined;
  const notice = () => {
    seen = true;
    waiting?.();
  };
  const events = watch(directory, notice);
  // a directory that went away gives an error; the poll of wait() goes on without events
  events.on("error", notice);
  return {
    wait(timeoutMs, signal) {
      if (signal.aborted) return Promise.reject(signal.reason);
      if (seen) {
        seen = false;
        return Promise.resolve(true);
      }
      const { promise, resolve, reject } = Promise.withResolvers<boolean>();
      const done = (event: boolean) => {
        clearTimeout(timer);
        signal.removeEventListener("abort", abort);
        waiting = undefined;
        seen = false;
        resolve(event);
      };
      const abort = () => {
        clearTimeout(timer);
        waiting = undefined;
        reject(signal.reason);
      };
      const timer = setTimeout(() => done(false), timeoutMs);
      waiting = () => done(true);
      signal.addEventListener("abort", abort, { once: true });
      return promise;
    },
    close: () => events.close(),
  };
}
