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

/** Changes of one table in one batch. */
export interface ParkedPiece {
  readonly id: bigint;
  /** its origin has had a schema that is known here since */
  readonly outlived: boolean;
  readonly tables: readonly TableChanges[];
}

export class Parked {
  /** by folded name of the table they wait for */
  readonly tables = new Map<string, ParkedTable>();
  private readonly insert: Statement;
  private readonly first: Statement;
  private readonly remove: Statement;
  private readonly outlived: Statement;

  constructor(private readonly db: Database) {
    this.insert = db.prepare(
      `INSERT INTO ${PARKED}(table_name, origin, outlived, changes, reason, frame) VALUES (?, ?, 0, ?, ?, ?)`,
    );
    this.first = db.prepare(`SELECT id, outlived, frame FROM ${PARKED} WHERE table_name = ? ORDER BY id LIMIT ?`);
    this.remove = db.prepare(`DELETE FROM ${PARKED} WHERE table_name = ? AND id <= ?`);
    this.outlived = db.prepare(
      `UPDATE ${PARKED} SET outlived = 1 WHERE table_name = ? AND origin = ? AND NOT outlived`,
    );
    this.load();
  }

  /** Takes what the database says. */
  load(): void {
    // read first, since a lock may be in its way
    const found = readParked(this.db);
    this.tables.clear();
    for (const parked of found) this.tables.set(fold(parked.table), parked);
  }

  /** @returns what takes back all that is said here from now on, for a transaction that is undone: without the database */
  undo(): () => void {
    const before = [...this.tables].map(([name, parked]) => [name, { ...parked }] as const);
    return () => {
      this.tables.clear();
      for (const [name, parked] of before) this.tables.set(name, parked);
    };
  }

  add(table: string, reason: string, changes: TableChanges, origin: string): void {
    const count = BigInt(changes.changes.length);
    this.insert.run(fold(table), origin, count, reason, encodeFrame([changes]));
    const parked = this.tables.get(fold(table));
    if (parked === undefined) this.tables.set(fold(table), { table, changes: changes.changes.length, reason });
    else parked.changes += changes.changes.length;
  }

  /** The oldest of a table, at most `limit` pieces. */
  oldest(table: string, limit: number): ParkedPiece[] {
    return this.first.all(fold(table), BigInt(limit)).map(([id, outlived, frame]) => ({
      id: id as bigint,
      outlived: outlived === 1n,
      tables: decodeFrame(frame as Uint8Array),
    }));
  }

  /**
   * The origin has a schema of this table that is known here: what it sent before, under one that this node never had, is
   * not waited for any more.
   */
  outlive(table: string, origin: string): void {
    this.outlived.run(fold(table), origin);
  }

  /** Takes the first pieces away, which `oldest` gave. */
  removeFirst(table: string, pieces: readonly ParkedPiece[]): void {
    this.remove.run(fold(table), pieces.at(-1)!.id);
    const parked = this.tables.get(fold(table));
    const changes = pieces.flatMap(({ tables }) => tables.map((of) => of.changes.length));
    if (parked !== undefined) parked.changes -= changes.reduce((sum, count) => sum + count, 0);
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
