/**
 * Makes the database of a new node from that of another: without identity and entries, and handed out only once
 * everything pending in it was read back by its source. A copy with pending entries would diverge if the source died
 * before publishing them.
 */
import { chmodSync, existsSync, renameSync, rmSync, type Stats, statSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { EXIT, MarmotError } from "./errors.ts";
import type { Database } from "./database.ts";
import { commandProblem, findDatabase, isRunning } from "./place.ts";
import type { Clock, Log } from "./runtime.ts";
import { copyDatabase, openDatabase, sqliteProblem, transaction } from "./sqlite/connection.ts";
import { dropEntries, type PendingMarks, pendingMarks, stillPending } from "./sqlite/change_log.ts";
import { type Cursor, readPositions, writeAhead } from "./sqlite/cursors.ts";
import { addOwnColumns, forgetIdentity, hasOwnTables } from "./sqlite/own_tables.ts";
import { schemaVersion } from "./sqlite/schema.ts";

/** How often the source is asked whether it has read its entries back, ms */
const POLL_MS = 100;
/** How often a wait is said, ms */
const SAY_WAITING_MS = 5_000;
const BUSY_TIMEOUT_MS = 5_000;
const GROUP_MAY = 0o070;
const OTHERS_MAY = 0o007;
/** Who makes the copy reads and writes it, also that of a backup which nobody may write to */
const OWNER_MAY = 0o600;
/** A database, and what SQLite takes for a part of it when it lies there, also if another one left it */
const DATABASE_FILES = ["", "-wal", "-shm", "-journal"];

export interface CloneOptions {
  readonly from: string;
  readonly to: string;
  readonly log: Log;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** @throws MarmotError; `to` is not there then */
export async function cloneDatabase(options: CloneOptions): Promise<void> {
  const { from, log } = options;
  const to = resolve(options.to);
  const place = findDatabase(from, false);
  const there = DATABASE_FILES.map((suffix) => to + suffix).find((path) => existsSync(path));
  if (there !== undefined) {
    throw new MarmotError(`Cannot clone to ${to}: ${there} exists. Give another path, or remove it.`, EXIT.refused);
  }
  const draft = `${to}.marmot-clone`;
  try {
    makeDraft(draft, statSync(place.dbPath));
    const source = openDatabase(place.dbPath, { readOnly: true, busyTimeoutMs: BUSY_TIMEOUT_MS });
    try {
      if (!hasOwnTables(source)) {
        throw new MarmotError(
          `Cannot clone ${from}: Marmot never ran on it. A plain copy of the file will do.`,
          EXIT.refused,
        );
      }
      const version = schemaVersion(source);
      await copyDatabase(source, draft);
      const marks = prepareCopy(draft);
      if (marks.stamps.size > 0) {
        const cursors = await readBack(source, marks, () => isRunning(place), options);
        // what was pending in a column that is dropped is never published, and the copy has it
        if (schemaVersion(source) !== version) throw schemaChanged(from);
        keepAhead(draft, cursors);
      }
    } finally {
      source.close();
    }
    renameSync(draft, to);
    log.info("clone is ready", { from: place.dbPath, to });
  } catch (error) {
    removeDatabase(draft);
    const problem = sqliteProblem(error);
    // nothing is written to the source
    throw commandProblem(problem === "full" || problem === "read-only" ? to : from, error);
  }
}

function schemaChanged(from: string): MarmotError {
  return new MarmotError(
    `Cannot clone ${from}: its schema changed while it read back what is pending in the copy. Clone it again.`,
    EXIT.refused,
  );
}

/** Nobody may read the copy who may not read the source: another group gets what all others have. */
function makeDraft(path: string, source: Stats): void {
  try {
    removeDatabase(path);
    writeFileSync(path, "", { mode: OWNER_MAY });
    const ofGroup = statSync(path).gid === source.gid ? source.mode : source.mode << 3;
    chmodSync(path, OWNER_MAY | ofGroup & GROUP_MAY | source.mode & OTHERS_MAY);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new MarmotError(`Cannot make ${path}: ${reason}. Check the folder, its owner and mode.`, EXIT.database, {
      cause,
    });
  }
}

/** Takes identity and entries out of the copy. @returns the entries it had: it may be used once its source has read them back */
function prepareCopy(path: string): PendingMarks {
  const copy = openDatabase(path);
  try {
    return transaction(copy, "IMMEDIATE", () => {
      addOwnColumns(copy);
      const marks = pendingMarks(copy);
      dropEntries(copy);
      forgetIdentity(copy);
      return marks;
    });
  } finally {
    copy.close();
  }
}

/** @returns where the source stood by then */
async function readBack(
  source: Database,
  marks: PendingMarks,
  running: () => boolean,
  options: CloneOptions,
): Promise<ReadonlyMap<number, Cursor>> {
  const { clock, log, signal } = options;
  for (let saidAt = clock.now();;) {
    const left = askedWhenFree(() => stillPending(source, marks));
    const cursors = left === 0 ? askedWhenFree(() => readPositions(source)) : undefined;
    if (cursors !== undefined) return cursors;
    if (!running()) {
      throw new MarmotError(
        `Cannot clone: changes in ${options.from} were not read back from the stream yet, and no Marmot runs on it. ` +
          "Start it, connected to its broker, and clone again.",
        EXIT.refused,
      );
    }
    if (clock.now() - saidAt >= SAY_WAITING_MS) {
      log.info("waiting until the source has read back what is pending", { tables: left ?? 1 });
      saidAt = clock.now();
    }
    await clock.sleep(POLL_MS, signal);
  }
}

/** The copy has rows of up to where its source stands, and must not go on if its stream loses messages before that. */
function keepAhead(path: string, source: ReadonlyMap<number, Cursor>): void {
  const copy = openDatabase(path);
  try {
    transaction(copy, "IMMEDIATE", () => writeAhead(copy, source));
  } finally {
    copy.close();
  }
}

/** @returns undefined at a lock, which is one more round of waiting */
function askedWhenFree<T>(ask: () => T): T | undefined {
  try {
    return ask();
  } catch (error) {
    if (sqliteProblem(error) === "busy") return undefined;
    throw error;
  }
}

function removeDatabase(path: string): void {
  for (const suffix of DATABASE_FILES) rmSync(path + suffix, { force: true });
}
