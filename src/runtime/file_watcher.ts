/**
 * File-system events that hint at a commit. Which files may be watched is a question of life and death: Deno opens and
 * closes each file that it reports, and when a process closes any descriptor of a file, POSIX drops all locks it has on
 * it. Marmot would lose SQLite's locks on the database, and the next application that closes it would take the WAL away
 * (seen: a node that reads an old snapshot for ever, or dies of SIGBUS). So on Deno only the -wal file is watched, on
 * which SQLite holds no locks; Bun opens nothing, and its directory watch also shows a -wal file that is made anew.
 */
import { existsSync, type FSWatcher, watch } from "node:fs";
import { basename, dirname } from "node:path";
import process from "node:process";
import type { Watcher } from "../watcher.ts";

/** Without events to wait for (a rollback journal on Deno), look this often, ms */
const BLIND_MS = 15;
/** A system that has no more watches to give is asked again this often, ms */
const ARM_AGAIN_MS = 10_000;

/** Watches for writes to a database. */
export function watchDatabase(dbPath: string): Watcher {
  return process.versions.bun === undefined
    ? new FileWatcher(`${dbPath}-wal`, "")
    : new FileWatcher(dirname(dbPath), basename(dbPath));
}

class FileWatcher implements Watcher {
  private events: FSWatcher | undefined;
  private seen = false;
  private waiting: (() => void) | undefined;
  private armAfter = -Infinity;

  /** @param names of the files in a folder that matter begin so: its others may be written to all the time */
  constructor(private readonly path: string, private readonly names: string) {
    this.arm();
  }

  wait(timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    if (signal.aborted) return Promise.reject(signal.reason);
    if (this.events === undefined) this.arm();
    if (this.seen) {
      this.seen = false;
      return Promise.resolve(true);
    }
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    const done = (event: boolean) => {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
      this.waiting = undefined;
      this.seen = false;
      resolve(event);
    };
    const abort = () => {
      clearTimeout(timer);
      this.waiting = undefined;
      reject(signal.reason);
    };
    const timer = setTimeout(() => done(false), this.events === undefined ? Math.min(timeoutMs, BLIND_MS) : timeoutMs);
    this.waiting = () => done(true);
    signal.addEventListener("abort", abort, { once: true });
    return promise;
  }

  close(): void {
    this.events?.close();
  }

  /** The -wal file may not be there yet, or be there no more. */
  private arm(): void {
    if (performance.now() < this.armAfter || !existsSync(this.path)) return;
    try {
      this.events = watch(this.path, (kind, name) => {
        const isGone = kind === "rename" && !existsSync(this.path);
        if (isGone) this.disarm();
        if (isGone || name === null || name.startsWith(this.names)) this.notice();
      });
    } catch {
      this.refused();
      return;
    }
    // Deno tells only here that it has no watch
    this.events.on("error", () => {
      this.refused();
      this.notice();
    });
  }

  /** Gone in between, or the system has no more watches to give: it is looked at instead, see wait. */
  private refused(): void {
    this.disarm();
    this.armAfter = performance.now() + ARM_AGAIN_MS;
  }

  private disarm(): void {
    this.events?.close();
    this.events = undefined;
  }

  private notice(): void {
    this.seen = true;
    this.waiting?.();
  }
}
