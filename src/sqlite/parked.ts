/** Changes that wait for this node's schema, in order. */
import type { TableChanges } from "../change.ts";
import { decodeFrame, encodeFrame } from "../change_codec.ts";
import type { Database, Statement } from "../database.ts";
import { PARKED } from "./own_tables.ts";
import { fold } from "./quote.ts";
import { PREFIX } from "./schema.ts";

export interface ParkedTable {
  readonly table: string;
  changes: number;
  reason: string;
}

export class Parked {
  /** by folded name of the table they wait for */
  readonly tables = new Map<string, ParkedTable>();
  private readonly insert: Statement;
  private readonly first: Statement;
  private readonly remove: Statement;

  constructor(private readonly db: Database) {
    this.insert = db.prepare(`INSERT INTO ${PARKED}(table_name, changes, reason, frame) VALUES (?, ?, ?, ?)`);
    this.first = db.prepare(`SELECT id, frame FROM ${PARKED} WHERE table_name = ? ORDER BY id LIMIT ?`);
    this.remove = db.prepare(`DELETE FROM ${PARKED} WHERE table_name = ? AND id <= ?`);
    this.load();
  }

  /** Takes what the database says; after a rollback, too. */
  load(): void {
    this.tables.clear();
    for (const { table, changes, reason } of readParked(this.db)) {
      this.tables.set(fold(table), { table, changes, reason });
    }
  }

  add(table: string, reason: string, changes: TableChanges): void {
    this.insert.run(fold(table), BigInt(changes.changes.length), reason, encodeFrame([changes]));
    const parked = this.tables.get(fold(table));
    if (parked === undefined) this.tables.set(fold(table), { table, changes: changes.changes.length, reason });
    else parked.changes += changes.changes.length;
  }

  /** The oldest of a table, at most `limit` pieces. */
  oldest(table: string, limit: number): { id: bigint; tables: TableChanges[] }[] {
    return this.first.all(fold(table), BigInt(limit)).map(([id, frame]) => ({
      id: id as bigint,
      tables: decodeFrame(frame as Uint8Array),
    }));
  }

  removeTo(table: string, id: bigint): void {
    this.remove.run(fold(table), id);
  }

  drop(table: string): void {
    this.remove.run(fold(table), 9223372036854775807n);
    this.tables.delete(fold(table));
  }
}

export function readParked(db: Database): ParkedTable[] {
  const sql =
    `SELECT table_name, sum(changes), (SELECT reason FROM ${PARKED} AS f WHERE f.table_name = p.table_name ORDER BY id LIMIT 1) FROM ${PARKED} AS p GROUP BY table_name`;
  return db.prepare(sql).all().map(([table, changes, reason]) => ({
    table: String(table),
    changes: Number(changes),
    reason: String(reason),
  }));
}

/** What waits for a table waits for it under its new name. Tables may have taken each other's. */
export function renameParked(db: Database, tables: readonly (readonly [then: string, now: string])[]): void {
  const update = db.prepare(`UPDATE ${PARKED} SET table_name = ? WHERE table_name = ?`);
  tables.forEach(([then], place) => update.run(`${PREFIX}${place}`, fold(then)));
  tables.forEach(([, now], place) => update.run(fold(now), `${PREFIX}${place}`));
}
