/** Settings of a connection and of a file. */
import type { Database, Statement } from "../database.ts";

export function journalMode(db: Database): string {
  return String(db.prepare("PRAGMA main.journal_mode").get()![0]);
}

/** Stays with the file, for everyone who opens it. Throws when another connection is in the way. */
export function switchToWal(db: Database): void {
  db.prepare("PRAGMA main.journal_mode = WAL").get();
}

/** In WAL mode a commit need not wait for the disk: a power cut may take the last ones back, which invariant I8 covers. */
export function syncAtCheckpoints(db: Database): void {
  db.exec("PRAGMA synchronous = NORMAL");
}

/** CHECK constraints were held where a change was made, perhaps by functions that only the application knows. */
export function skipChecks(db: Database): void {
  db.exec("PRAGMA ignore_check_constraints = ON");
}

/** Reads a number that changes with every commit of another connection. */
export function dataVersion(db: Database): Statement {
  return db.prepare("PRAGMA main.data_version");
}

/** Takes the file's lock until the connection is closed. Throws "busy" when another process has it. */
export function lockFile(db: Database): void {
  db.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = MEMORY");
  db.exec("BEGIN EXCLUSIVE");
}
