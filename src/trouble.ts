/** What keeps a node from going on for now: said once, shown in `status`, and tried again. Never an end. */
import type { Log } from "./runtime.ts";
import { sqliteProblem } from "./sqlite/connection.ts";

/** Pause after a step that met a lock, ms */
const BUSY_MS = 3;
/** Pause after a step that met trouble which does not pass at once (a full disk), ms */
const TROUBLE_MS = 1_000;
/** A lock that is held this long is said, ms */
const LOCK_LIMIT_MS = 10_000;
const LOCKED = "another process holds the database's lock: what needs it waits until it lets go";

export class Trouble {
  /** why the node does not go on; empty while it does */
  reasons: readonly string[] = [];
  private lockedSince: number | undefined;

  constructor(private readonly log: Log) {}

  /** A step went well. */
  over(): void {
    this.reasons = [];
    this.lockedSince = undefined;
  }

  /** @returns the pause before the next try, ms */
  met(error: unknown, now: number): number {
    const problem = sqliteProblem(error);
    if (problem === "busy") return this.locked(now);
    if (problem === "schema changed") return 0;
    const reason = error instanceof Error ? error.message : String(error);
    if (!this.reasons.includes(reason)) {
      const stack = problem === "other" && error instanceof Error ? error.stack : undefined;
      this.log.error("cannot go on for now", { reason, problem, stack });
    }
    this.reasons = [reason];
    return TROUBLE_MS;
  }

  private locked(now: number): number {
    this.lockedSince ??= now;
    if (now - this.lockedSince >= LOCK_LIMIT_MS && this.reasons.length === 0) {
      this.log.warn(LOCKED, { seconds: Math.round((now - this.lockedSince) / 1000) });
      this.reasons = [LOCKED];
    }
    return BUSY_MS;
  }
}
