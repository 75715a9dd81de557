/** The Database contract over node:sqlite, which Deno and Bun both have. */
import { statSync } from "node:fs";
import { backup, DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import type { Authorizer, Database, DriverValue, FunctionOptions, Row, Statement } from "../database.ts";

/** Codes of sqlite.org/rescode.html that callers tell apart. */
const SQLITE_BUSY = 5;
const SQLITE_LOCKED = 6;
const SQLITE_NOMEM = 7;
const SQLITE_IOERR = 10;
const SQLITE_CORRUPT = 11;
const SQLITE_FULL = 13;
const SQLITE_NOTADB = 26;
const SQLITE_READONLY = 8;
const SQLITE_CANTOPEN = 14;
const SQLITE_SCHEMA = 17;

export interface ConnectionOptions {
  /**
   * Nothing is changed through it. The file is opened for writing all the same, where it may be: what a killed process left
   * half done in a rollback journal can only be taken back so.
   */
  readOnly?: boolean;
  /** how long SQLite waits for a lock, blocking the thread; ms */
  busyTimeoutMs?: number;
}

/**
 * Opens a database file. Foreign keys are not enforced on it, CHECK constraints neither: the origin of a change did.
 * Throws what node:sqlite throws (see sqliteProblem).
 */
export function openDatabase(path: string, options: ConnectionOptions = {}): Database {
  // before, not after: where the file is replaced in between, this tells of the old one, and is seen to differ
  const inode = inodeOf(path);
  const db = new DatabaseSync(path, {
    enableForeignKeyConstraints: false,
    // as SQLite's default build has it, in which the application's triggers and CHECKs were made
    enableDoubleQuotedStringLiterals: true,
    timeout: options.busyTimeoutMs ?? 0,
  });
  if (options.readOnly) db.exec("PRAGMA query_only = ON");
  return new NodeSqlite(path, inode, db);
}

/** Which file a path leads to: 0 when there is none. */
export function inodeOf(path: string): bigint {
  return statSync(path, { bigint: true, throwIfNoEntry: false })?.ino ?? 0n;
}

/** Of the library itself: what Deno says in process.versions is another one. */
export function sqliteVersion(): string {
  const db = openDatabase(":memory:");
  try {
    return String(db.prepare("SELECT sqlite_version()").get()?.[0]);
  } finally {
    db.close();
  }
}

/** Copies a database page by page, as it is at one moment, while others write to it. */
export async function copyDatabase(source: Database, to: string): Promise<void> {
  if (!(source instanceof NodeSqlite)) throw new Error("Cannot copy a database of another driver");
  await source.copyTo(to);
}

type Implementation = (...args: DriverValue[]) => DriverValue;

/** Deno keeps a function that SQLite calls for ever, and all that it holds: so it holds a map that is emptied. */
function calling(
  implementations: ReadonlyMap<string, Implementation>,
  name: string,
): (...args: unknown[]) => DriverValue {
  return (...args) => implementations.get(name)!(...args as DriverValue[]);
}

class NodeSqlite implements Database {
  private readonly functions = new Map<string, Implementation>();

  constructor(readonly path: string, readonly inode: bigint, private readonly db: DatabaseSync) {}

  prepare(sql: string): Statement {
    const statement = this.db.prepare(sql);
    statement.setReadBigInts(true);
    statement.setReturnArrays(true);
    return new NodeStatement(statement);
  }

  exec(sql: string): void {
    this.db.exec(sql);
  }

  setAuthorizer(authorizer: Authorizer | null): void {
    this.db.setAuthorizer(authorizer);
  }

  function(name: string, options: FunctionOptions, implementation: Implementation): void {
    const known = this.functions.has(name);
    this.functions.set(name, implementation);
    if (!known) this.db.function(name, { ...options, useBigIntArguments: true }, calling(this.functions, name));
  }

  async copyTo(path: string): Promise<void> {
    await backup(this.db, path);
  }

  close(): void {
    this.db.close();
    this.functions.clear();
  }
}

class NodeStatement implements Statement {
  constructor(private readonly statement: StatementSync) {}

  run(...params: DriverValue[]): number {
    return Number(this.statement.run(...params as SQLInputValue[]).changes);
  }

  get(...params: DriverValue[]): Row | undefined {
    return this.statement.get(...params as SQLInputValue[]) as unknown as Row | undefined;
  }

  all(...params: DriverValue[]): Row[] {
    return this.statement.all(...params as SQLInputValue[]) as unknown as Row[];
  }
}

export type SqliteProblem =
  | "busy"
  | "full"
  | "corrupt"
  | "not a database"
  | "read-only"
  | "cannot open"
  | "input/output"
  | "schema changed"
  | "out of memory"
  | "other";

/** By message too, because older Deno versions give no code. */
const BY_MESSAGE: readonly [RegExp, SqliteProblem][] = [
  [/database (table )?is locked|database schema is locked/, "busy"],
  [/database or disk is full/, "full"],
  [/malformed/, "corrupt"],
  [/not a database|file is encrypted/, "not a database"],
  [/readonly database|attempt to write a readonly/, "read-only"],
  [/unable to open database/, "cannot open"],
  [/disk I\/O error/, "input/output"],
  [/database schema has changed/, "schema changed"],
  [/out of memory/, "out of memory"],
];

const BY_CODE = new Map<number, SqliteProblem>([
  [SQLITE_BUSY, "busy"],
  [SQLITE_LOCKED, "busy"],
  [SQLITE_NOMEM, "out of memory"],
  [SQLITE_FULL, "full"],
  [SQLITE_CORRUPT, "corrupt"],
  [SQLITE_NOTADB, "not a database"],
  [SQLITE_READONLY, "read-only"],
  [SQLITE_CANTOPEN, "cannot open"],
  [SQLITE_IOERR, "input/output"],
  [SQLITE_SCHEMA, "schema changed"],
]);

/** What kind of SQLite error this is; "other" for anything else, errors of our own included. */
export function sqliteProblem(error: unknown): SqliteProblem {
  if (!(error instanceof Error)) return "other";
  const code = (error as { errcode?: unknown }).errcode;
  if (typeof code === "number") return BY_CODE.get(code & 0xff) ?? "other";
  return BY_MESSAGE.find(([pattern]) => pattern.test(error.message))?.[1] ?? "other";
}

/**
 * Runs `body` between BEGIN and COMMIT; any error rolls back and is thrown on.
 * @param tries how often BEGIN is tried while another connection holds the lock, without a pause: a writer that never
 * rests lets go of it for some microseconds only, which a sleep would miss
 */
export function transaction<T>(db: Database, kind: "DEFERRED" | "IMMEDIATE", body: () => T, tries = 1): T {
  begin(db, kind, tries);
  try {
    const result = body();
    db.exec("COMMIT");
    return result;
  } catch (error) {
    rollback(db);
    throw error;
  }
}

/**
 * Runs `body` inside of a transaction.
 * @returns what SQLite refused in it for what it is: nothing of it is done then. Any other error is thrown on
 */
export function refusal(db: Database, body: () => void): Error | undefined {
  db.exec("SAVEPOINT refusal");
  try {
    body();
  } catch (error) {
    const isOfSqlite = error instanceof Error && (error as { code?: unknown }).code === "ERR_SQLITE_ERROR";
    if (!isOfSqlite || sqliteProblem(error) !== "other") throw error;
    db.exec("ROLLBACK TO refusal");
    db.exec("RELEASE refusal");
    return error;
  }
  db.exec("RELEASE refusal");
  return undefined;
}

function begin(db: Database, kind: string, tries: number): void {
  for (let left = tries;; left--) {
    try {
      return db.exec(`BEGIN ${kind}`);
    } catch (error) {
      if (left <= 1 || sqliteProblem(error) !== "busy") throw error;
    }
  }
}

function rollback(db: Database): void {
  try {
    db.exec("ROLLBACK");
  } catch (error) {
    // SQLite has rolled back by itself after some errors (full disk, I/O): nothing is left to undo
    if (!/no transaction is active/.test(String(error))) throw error;
  }
}
