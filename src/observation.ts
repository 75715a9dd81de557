/** Notices what others do to the database: commits, changes of the schema, and a file that is not the one it was. */
import { statSync } from "node:fs";
import type { Database, Statement } from "./database.ts";
import { dataVersion } from "./sqlite/pragmas.ts";
import { schemaVersion } from "./sqlite/schema.ts";

/**
 * A commit writes to the WAL first, and is visible a moment after that event, or later where its process has to wait for
 * a processor: looked at this often at first, ever less often, and for so long, ms
 */
const EVENT_STEP_MS = 1;
/** At first without a timer, which takes 1 to 2 ms at least */
const EVENT_SPIN_MS = 2.5;
/** Events that come so soon after a commit of our own are not worth that, ms */
const OWN_EVENTS_MS = 2;
const EVENT_MS = 100;
/** The next look comes after this share of the time since the event. */
const EVENT_SLOWER = 1 / 8;
/**
 * Looked at this often when no event tells of a commit, ms: while something happens, and once nothing did for a while.
 * Where a commit came without an event (a file system that has none), it stays at the first.
 */
const POLL_MS = 250;
const IDLE_POLL_MS = 1_000;
const IDLE_AFTER_MS = 5_000;
/** The application counts as writing for this long after a commit, ms */
const WRITING_MS = 200;
/** The schema is taken up when it did not change for this long, or after the limit all the same, ms */
const SCHEMA_QUIET_MS = 100;
const SCHEMA_LIMIT_MS = 1_000;

/** The file is not the one this process left. */
export class ReplacedError extends Error {}

export class Observation {
  private readonly dataVersion: Statement;
  private lastDataVersion: number | undefined;
  private eventAt = -Infinity;
  /** when the last event came, also one of a commit of our own */
  private toldAt = -Infinity;
  private lastCommitAt: number | undefined;
  private untold = false;
  private ownUntil = -Infinity;
  private writingUntil = 0;
  private schema: { version: number; quietSince: number; first: number } | undefined;
  private readonly inode: bigint;

  constructor(private readonly db: Database) {
    this.dataVersion = dataVersion(db);
    this.inode = inodeOf(db.path);
  }

  /** The path leads to another file than the one that is open. */
  get isReplaced(): boolean {
    return inodeOf(this.db.path) !== this.inode;
  }

  /** A file was written to: perhaps by a commit. */
  event(now: number): void {
    this.toldAt = now;
    this.eventAt = now < this.ownUntil ? now - EVENT_SPIN_MS : now;
  }

  /** This connection has committed: the events that follow are most likely its own. */
  wrote(now: number): void {
    this.ownUntil = now + OWN_EVENTS_MS;
  }

  /** How soon to look again, ms, when no commit was seen. */
  patience(now: number): number {
    const since = now - this.eventAt;
    if (since < EVENT_SPIN_MS) return 0;
    return since < EVENT_MS ? Math.max(EVENT_STEP_MS, since * EVENT_SLOWER) : Infinity;
  }

  /** Has another connection committed since the last call? The first call says no: nothing was seen before it. */
  committed(now: number): boolean {
    const version = Number(this.dataVersion.get()![0]);
    const before = this.lastDataVersion;
    this.lastDataVersion = version;
    if (before === undefined || before === version) return false;
    this.untold ||= now - this.toldAt > IDLE_POLL_MS;
    this.lastCommitAt = now;
    this.writingUntil = now + WRITING_MS;
    this.eventAt = -Infinity;
    return true;
  }

  /** How long to wait for an event before looking all the same, ms. */
  pollMs(now: number): number {
    this.lastCommitAt ??= now;
    return this.untold || now - this.lastCommitAt < IDLE_AFTER_MS ? POLL_MS : IDLE_POLL_MS;
  }

  isWriting(now: number): boolean {
    return now < this.writingUntil;
  }

  /**
   * A migration changes the schema step by step: it is followed once it is quiet, so as not to be in the way of its
   * next step.
   * @returns how long to wait before that, ms
   */
  schemaChanged(now: number): number {
    const version = schemaVersion(this.db);
    if (this.schema?.version !== version) {
      this.schema = { version, quietSince: now, first: this.schema?.first ?? now };
    }
    const due = Math.min(this.schema.quietSince + SCHEMA_QUIET_MS, this.schema.first + SCHEMA_LIMIT_MS);
    if (now >= due) this.schema = undefined;
    return Math.max(0, due - now);
  }
}

function inodeOf(path: string): bigint {
  return statSync(path, { bigint: true, throwIfNoEntry: false })?.ino ?? 0n;
}
