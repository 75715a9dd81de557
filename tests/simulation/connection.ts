/**
 * What a simulated process has for a connection: each statement is a place where the process may be killed, the
 * application may write in between, and the disk or a lock may be in the way.
 */
import type { Database, DriverValue, Row, Statement } from "../../src/database.ts";

export class Killed extends Error {}

export interface Surroundings {
  /** called before each statement is compiled or executed; throws what is in the way */
  before(sql: string, executes: boolean): void;
  /** called after COMMIT */
  committed(sql: string): void;
  /** who holds the write lock; undefined: nobody does */
  holder(): unknown;
  /** the stamp of an entry that is made by `sql` */
  random(sql: string): bigint;
}

const BEGIN = "BEGIN IMMEDIATE";

/** SQLite refuses a lock that somebody holds; asked again, a hundred times without a pause, it would say the same. */
function beginning(db: Database, around: Surroundings): () => void {
  let refused: { readonly holder: unknown; readonly error: unknown } | undefined;
  return () => {
    const holder = around.holder();
    if (holder !== undefined && holder === refused?.holder) throw refused.error;
    try {
      db.exec(BEGIN);
    } catch (error) {
      refused = { holder, error };
      throw error;
    }
  };
}

export function surrounded(db: Database, around: Surroundings): Database {
  let current = "";
  const run = <T>(sql: string, action: () => T, executes = true): T => {
    around.before(sql, executes);
    current = sql;
    const result = action();
    if (sql === "COMMIT") around.committed(sql);
    return result;
  };
  const begin = beginning(db, around);
  db.function("random", { varargs: false, deterministic: false }, () => around.random(current));
  return {
    path: db.path,
    inode: db.inode,
    prepare(sql): Statement {
      const statement = run(sql, () => db.prepare(sql), false);
      return {
        run: (...params: DriverValue[]): number => run(sql, () => statement.run(...params)),
        get: (...params: DriverValue[]): Row | undefined => run(sql, () => statement.get(...params)),
        all: (...params: DriverValue[]): Row[] => run(sql, () => statement.all(...params)),
      };
    },
    exec: (sql) => run(sql, () => sql === BEGIN ? begin() : db.exec(sql)),
    setAuthorizer: (authorizer) => db.setAuthorizer(authorizer),
    function: (name, options, implementation) => db.function(name, options, implementation),
    close: () => db.close(),
  };
}
