/** Where a node lives: its database file, and the folder beside it. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import type { Database } from "./database.ts";
import { EXIT, MarmotError } from "./errors.ts";
import { openDatabase, sqliteProblem } from "./sqlite/connection.ts";
import { lockFile, skipChecks } from "./sqlite/pragmas.ts";

const FOLDER_MODE = 0o700;
const FILE_MODE = 0o600;

export interface NodePlace {
  /** real path of the database file */
  readonly dbPath: string;
  /** `<db>-marmot`, 0700 */
  readonly folder: string;
  /** the file was not there before */
  readonly created: boolean;
}

/** Names the place for the lease: no other process can be at it while its lock is held. */
export function holderOf({ dbPath }: NodePlace): string {
  return `${hostname()}:${dbPath}`;
}

/**
 * Finds the database file (makes an empty one with `create`).
 * @throws MarmotError (database) when there is none, or it is something else
 */
export function findDatabase(path: string, create: boolean): NodePlace {
  const created = !existsSync(path);
  if (created) {
    if (!create) {
      throw new MarmotError(
        `Cannot open ${path}: there is no such file. --create starts with an empty database.`,
        EXIT.database,
      );
    }
    if (!existsSync(dirname(join(path)))) {
      throw new MarmotError(`Cannot create ${path}: its folder does not exist.`, EXIT.database);
    }
    attempt(`Cannot create ${path}`, () => openDatabase(path).close());
    attempt(`Cannot create ${path}`, () => writeFileSync(path, "", { flag: "a" }));
  }
  const dbPath = realpathSync(path);
  if (!statSync(dbPath).isFile()) {
    throw new MarmotError(`Cannot open ${path}: it is not a file. Give the path of a SQLite database.`, EXIT.database);
  }
  return { dbPath, folder: `${dbPath}-marmot`, created };
}

/** A start that failed leaves no database behind that it made. */
export function removeIfEmpty({ dbPath }: NodePlace): void {
  if (statSync(dbPath, { throwIfNoEntry: false })?.size === 0) rmSync(dbPath);
}

export function makeFolder({ folder }: NodePlace): void {
  attempt(`Cannot use the folder ${folder}, where Marmot keeps its lock and the broker's files`, () => {
    mkdirSync(folder, { recursive: true, mode: FOLDER_MODE });
    chmodSync(folder, FOLDER_MODE);
  });
}

/** Held by the one Marmot that works on a database. The operating system lets go of it when the process ends. */
export interface PlaceLock {
  release(): void;
}

/**
 * @param waitMs for a process that only asks whether a Marmot runs, and holds the lock for a moment to find out
 * @returns undefined when another process holds it
 */
export function lockPlace({ folder }: NodePlace, waitMs = 0): PlaceLock | undefined {
  const path = join(folder, "lock");
  const lock = attempt(`Cannot lock ${path}`, () => openDatabase(path, { busyTimeoutMs: waitMs }));
  try {
    attempt(`Cannot lock ${path}`, () => chmodSync(path, FILE_MODE));
    lockFile(lock);
    return { release: () => lock.close() };
  } catch (error) {
    lock.close();
    if (sqliteProblem(error) === "busy") return undefined;
    throw databaseProblem(path, error) ?? error;
  }
}

/** Is a Marmot at work on this database? @throws MarmotError (database) for who may not look into its folder */
export function isRunning(place: NodePlace): boolean {
  const path = join(place.folder, "lock");
  const found = attempt(
    `Cannot tell whether a Marmot runs on ${place.dbPath}`,
    () => statSync(path, { throwIfNoEntry: false }),
  );
  if (found === undefined) return false;
  const lock = lockPlace(place);
  lock?.release();
  return lock === undefined;
}

const PROBLEMS: Partial<Record<ReturnType<typeof sqliteProblem>, string>> = {
  "not a database": "it is not a SQLite database, or it is encrypted. Marmot needs a plain SQLite file.",
  "corrupt": "it is damaged. Check it with `PRAGMA integrity_check` and restore a backup.",
  "read-only":
    "it can't be written to. Marmot adds its tables and triggers to it: check the owner and mode of the file and its folder.",
  "cannot open": "it can't be opened. Check the owner and mode of the file and its folder.",
  "full": "the disk is full.",
  "input/output": "the disk gave an error.",
};

/** The user's words for what SQLite says of a database file; undefined for a lock, which passes. */
export function databaseProblem(path: string, error: unknown): MarmotError | undefined {
  if (error instanceof MarmotError) return error;
  const problem = PROBLEMS[sqliteProblem(error)];
  return problem === undefined
    ? undefined
    : new MarmotError(`Cannot use ${path}: ${problem}`, EXIT.database, { cause: error });
}

/** The same for a command that does not wait for long, to which a lock is a problem as well. */
export function commandProblem(path: string, error: unknown): unknown {
  if (sqliteProblem(error) !== "busy") return databaseProblem(path, error) ?? error;
  const reason = "another process holds its lock. Try again once that lets go, or end it.";
  return new MarmotError(`Cannot use ${path}: ${reason}`, EXIT.database, { cause: error });
}

/** Opens a database that Marmot will write to, after a look at whether it is one. */
export function openReplicated({ dbPath }: NodePlace): Database {
  let db: Database | undefined;
  try {
    db = openDatabase(dbPath);
    skipChecks(db);
    return db;
  } catch (error) {
    db?.close();
    throw databaseProblem(dbPath, error) ?? error;
  }
}

/** Writes a small file so that readers see the old or the new one, never a half. */
export function writeWhole(path: string, text: string): void {
  writeFileSync(`${path}.new`, text, { mode: FILE_MODE });
  renameSync(`${path}.new`, path);
}

export function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") return undefined;
    throw error;
  }
}

function attempt<T>(what: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error);
    throw new MarmotError(`${what}: ${detail}. Check the owner and mode of the folder.`, EXIT.database, {
      cause: error,
    });
  }
}
