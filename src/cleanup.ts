/** Takes everything of Marmot out of a database again. */
import { EXIT, MarmotError } from "./errors.ts";
import { commandProblem, findDatabase, isRunning } from "./place.ts";
import { countPending } from "./sqlite/change_log.ts";
import { openDatabase, transaction } from "./sqlite/connection.ts";
import { removeAll } from "./sqlite/own_tables.ts";

/** How long the application's lock is waited for, ms */
const BUSY_TIMEOUT_MS = 10_000;

export interface CleanUpOptions {
  readonly dbPath: string;
  /** remove change logs although they hold pending changes */
  readonly force: boolean;
}

/**
 * Removes every table and trigger of Marmot. The folder beside the database is left: it holds the broker's messages.
 * @returns the names of what was removed
 * @throws MarmotError (conflict) while a Marmot runs, (refused) while changes are pending
 */
export function cleanUp({ dbPath, force }: CleanUpOptions): Promise<{ removed: string[] }> {
  const place = findDatabase(dbPath, false);
  if (isRunning(place)) {
    throw new MarmotError(`Cannot clean up ${dbPath}: a Marmot runs on it. Stop it first.`, EXIT.conflict);
  }
  try {
    const db = openDatabase(place.dbPath, { busyTimeoutMs: BUSY_TIMEOUT_MS });
    try {
      const removed = transaction(db, "IMMEDIATE", () => {
        const pending = countPending(db);
        if (pending.length > 0 && !force) throw pendingError(dbPath, pending);
        return removeAll(db);
      });
      return Promise.resolve({ removed });
    } finally {
      db.close();
    }
  } catch (error) {
    throw commandProblem(dbPath, error);
  }
}

function pendingError(dbPath: string, pending: readonly { table: string; entries: number }[]): MarmotError {
  const tables = pending.map(({ table, entries }) => `${table} ${entries}`).join(", ");
  return new MarmotError(
    `Cannot clean up ${dbPath}: changes that other nodes do not have yet would be lost (${tables}). ` +
      "Start Marmot until `marmot status` shows none pending, or give --force.",
    EXIT.refused,
  );
}
