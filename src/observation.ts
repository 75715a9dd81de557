/** Notices what others do to the database: commits, changes of the schema, and a file that is not the one it was. */
import type { Database, Statement } from "./database.ts";
import type { Runtime } from "./runtime.ts";
import { inodeOf } from "./sqlite/connection.ts";
import { dataVersion } from "./sqlite/pragmas.ts";
import { schemaVersion } from "./sqlite/schema.ts";

/**
 * A commit writes to the WAL first, and is visible a moment after that event, or later where its process has to wait for
 * a processor. It is looked for at once, without a timer (which takes 1 to 2 ms at least), ms, then whenever so many times
 * as long has gone by.
 */
const EVENT_SPIN_MS = 0.2;
const EVENT_TIMES = 4;
const EVENT_MS = 100;
/** Waiting for an event begins anew this often, ms */
const WATCH_MS = 60_000;
/**
 * Scans are at least so far apart, ms: a batch costs each node as much as some hundred changes. They are further apart
 * when there are many changes, and when what followed the last scan took longer while no scan is spared.
 */
const SCANS_APART_MS = 3;
const BUSY_SCANS_APART_MS = 10;
const BUSY_CHANGES = 50;
/** So many at once make a batch that is not joined with others, and takes the lock of each node for as long as it needs. */
const CROWDED_SCANS_APART_MS = 5;
const CROWDED_CHANGES = 500;
/** Scans that need not be apart, saved up while there were none: commits that come together by chance are not kept waiting. */
const SPARE_SCANS = 8;
/**
 * A writer is restless when so many changes come at once, each time so soon after the last, ms. Nothing is watched after
 * so many times; one with fewer changes counts for two of them.
 */
const RESTLESS_CHANGES = 8;
const RESTLESS_MS = 50;
const RESTLESS_TIMES = 20;
/** A commit has several events. Those that come so soon after it was seen, or was our own, are most likely its own, ms */
const SAME_COMMIT_MS = 2;
/**
 * Looked at this often when no event tells of a commit, ms: while something happens, and once nothing did for a while.
 * Where a commit came without an event (a file system that has none), it stays at the first.
 */
const POLL_MS = 250;
const IDLE_POLL_MS = 1_000;
const IDLE_AFTER_MS = 5_000;
/** The path is looked up at most this often, ms */
const INODE_MS = 50;
/** The application counts as writing for this long after a commit, ms */
const WRITING_MS = 200;
/** The schema is taken up when it did not change for this long, or after the limit all the same, ms */
const SCHEMA_QUIET_MS = 100;
const SCHEMA_LIMIT_MS = 1_000;

/** The file is not the one this process left. */
export class ReplacedError extends Error {}

/** Does somebody write without rest? */
class Restlessness {
  private times = 0;
  private at = -Infinity;

  /** So many changes were written. */
  add(now: number, changes: number): void {
    const isMuch = changes >= RESTLESS_CHANGES && now < this.at + RESTLESS_MS;
    this.times = Math.max(0, Math.min(2 * RESTLESS_TIMES, this.times + (isMuch ? 1 : -2)));
    this.at = now;
  }

  lasts(now: number): boolean {
    return this.times >= RESTLESS_TIMES && now < this.at + RESTLESS_MS;
  }
}

export class Observation {
  private readonly dataVersion: Statement;
  private lastDataVersion: number | undefined;
  private eventAt = -Infinity;
  /** when the last event came, also one of a commit of our own */
  private toldAt = -Infinity;
  private lastCommitAt: number | undefined;
  private untold = false;
  private sameCommitUntil = -Infinity;
  private writingUntil = 0;
  private schema: { version: number; quietSince: number; first: number } | undefined;
  private inodeAfter = -Infinity;
  private readonly application = new Restlessness();
  private readonly own = new Restlessness();
  private scannedAt = 0;
  private spareScans = SPARE_SCANS;
  /** not scanned again before this time, ms */
  scanAfter = 0;

  constructor(private readonly db: Database) {
    this.dataVersion = dataVersion(db);
  }

  /**
   * Does the path lead to another file than the one that is open? Looked at now and then only: what is written to the old
   * file meanwhile, cursor and all, is lost with it.
   */
  isReplaced(now: number): boolean {
    if (now < this.inodeAfter) return false;
    this.inodeAfter = now + INODE_MS;
    return inodeOf(this.db.path) !== this.db.inode;
  }

  /**
   * Rings at events of the file until aborted. While somebody writes without rest, this process included, there is one for
   * every write, and to take them is a sixth of what it does (measured on Deno): then it looks from time to time.
   */
  async follow({ clock, watch }: Runtime, ring: () => void, signal: AbortSignal): Promise<void> {
    try {
      while (!signal.aborted) {
        const watcher = watch(this.db.path);
        try {
          // what was committed before it watched: no event could tell of it
          this.toldAt = clock.now();
          ring();
          while (!this.isRestless(clock.now())) {
            if (await watcher.wait(WATCH_MS, signal)) this.event(clock.now());
            ring();
            if (clock.now() < this.scanAfter) await clock.sleep(this.scanAfter - clock.now(), signal);
          }
        } finally {
          watcher.close();
        }
        while (this.isRestless(clock.now())) {
          await clock.sleep(Math.max(SCANS_APART_MS, this.scanAfter - clock.now()), signal);
          this.toldAt = clock.now();
          ring();
        }
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  /**
   * A scan that began at `start` found so many changes.
   * @param spent on all that was done since the scan before it, ms
   */
  scanned(start: number, changes: number, spent: number): void {
    const busy = changes > BUSY_CHANGES;
    const busyApart = changes > CROWDED_CHANGES ? CROWDED_SCANS_APART_MS : BUSY_SCANS_APART_MS;
    this.application.add(start, changes);
    const saved = (start - this.scannedAt) / SCANS_APART_MS;
    this.spareScans = Math.max(0, Math.min(SPARE_SCANS, this.spareScans + saved) - 1);
    this.scannedAt = start;
    const apart = busy ? busyApart : Math.min(BUSY_SCANS_APART_MS, spent);
    this.scanAfter = !busy && this.spareScans > 0 ? start : start + Math.max(SCANS_APART_MS, apart);
  }

  private isRestless(now: number): boolean {
    return this.application.lasts(now) || this.own.lasts(now);
  }

  /** A file was written to: perhaps by a commit. */
  private event(now: number): void {
    this.toldAt = now;
    this.eventAt = now < this.sameCommitUntil ? now - EVENT_SPIN_MS : now;
  }

  /** This connection has committed so many changes. */
  wrote(now: number, changes: number): void {
    this.own.add(now, changes);
    this.sameCommitUntil = now + SAME_COMMIT_MS;
  }

  /** How soon to look again, ms, when no commit was seen. */
  patience(now: number): number {
    const since = now - this.eventAt;
    if (since < EVENT_SPIN_MS) return 0;
    return since < EVENT_MS ? (EVENT_TIMES - 1) * since : Infinity;
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
    this.sameCommitUntil = now + SAME_COMMIT_MS;
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
