/** Marmot's own tables in the replicated database, besides the change logs. */
import type { Database } from "../database.ts";
import { fold, id } from "./quote.ts";
import { PREFIX } from "./schema.ts";

/** Raised when an older Marmot could not read what this one writes. */
export const FORMAT = 2;

const TABLES: Record<string, string> = {
  /** facts about this node: format, id, shards */
  node: "(name TEXT PRIMARY KEY, value) WITHOUT ROWID",
  /** cursor of each shard, and the identity of the message it stands at */
  cursors: "(shard INTEGER PRIMARY KEY, cursor INTEGER NOT NULL, digest TEXT, time INTEGER)",
  /** last accepted message of each origin: the acceptance rule's memory */
  origins:
    "(shard INTEGER, origin TEXT, nonce TEXT, epoch INTEGER, number INTEGER, PRIMARY KEY (shard, origin)) WITHOUT ROWID",
  /** accepted parts of batches whose last part has not come yet */
  parts: "(id INTEGER PRIMARY KEY, shard INTEGER, origin TEXT, continues INTEGER, base INTEGER, frame BLOB)",
  /** accepted changes that wait for this node's schema, in order; `outlived` once their origin has the schema of here */
  parked:
    "(id INTEGER PRIMARY KEY, table_name TEXT, origin TEXT, outlived INTEGER, changes INTEGER, reason TEXT, frame BLOB)",
  /** every table this node ever had, with the shape that its change log has now, and the name its rows are hashed under */
  tables: "(name TEXT PRIMARY KEY, state TEXT, renamed_to TEXT, shape TEXT, home TEXT) WITHOUT ROWID",
  /**
   * every column a captured table ever had; `fill` is what a migration here gave to most rows in it; entries up to `filled_to`
   * were made before it was there; `affinities` those that it had, one after the other
   */
  columns:
    "(table_name TEXT, name TEXT, renamed_to TEXT, fill, filled_to INTEGER, affinities TEXT, PRIMARY KEY (table_name, name)) WITHOUT ROWID",
  /** every fingerprint a captured table ever had */
  fingerprints: "(table_name TEXT, fingerprint TEXT, PRIMARY KEY (table_name, fingerprint)) WITHOUT ROWID",
};

export const NODE_TABLE = `"${PREFIX}node"`;
export const CURSORS = `"${PREFIX}cursors"`;
export const ORIGINS = `"${PREFIX}origins"`;
export const PARTS = `"${PREFIX}parts"`;
export const PARKED = `"${PREFIX}parked"`;
export const TABLES_TABLE = `"${PREFIX}tables"`;
export const COLUMNS = `"${PREFIX}columns"`;
export const FINGERPRINTS = `"${PREFIX}fingerprints"`;

/** Columns that tables made by an older Marmot don't have. */
const ADDED: readonly (readonly [table: string, column: string, type: string])[] = [
  ["tables", "home", "TEXT"],
  ["columns", "filled_to", "INTEGER"],
  ["columns", "affinities", "TEXT"],
];

/** Gives the tables that are there the columns of today. */
export function addOwnColumns(db: Database): void {
  for (const [name, column, type] of ADDED) {
    const columns = db.prepare(`SELECT name FROM pragma_table_info('${PREFIX}${name}', 'main')`).all().flat();
    if (columns.length === 0 || columns.includes(column)) continue;
    db.exec(`ALTER TABLE main."${PREFIX}${name}" ADD COLUMN ${column} ${type}`);
  }
}

/** Makes what is missing; `own` are the folded names of the tables that are there. */
export function createOwnTables(db: Database, own: ReadonlyMap<string, unknown>): void {
  addOwnColumns(db);
  for (const [name, columns] of Object.entries(TABLES)) {
    if (own.has(fold(PREFIX + name))) continue;
    db.exec(`CREATE TABLE "${PREFIX}${name}"${columns}`);
    if (name !== "parked") continue;
    db.exec(`CREATE INDEX "${PREFIX}parked_order" ON "${PREFIX}parked"(table_name)`);
    db.exec(`CREATE INDEX "${PREFIX}parked_waiting" ON "${PREFIX}parked"(table_name, origin) WHERE NOT outlived`);
  }
}

export function readFact(db: Database, name: string): string | undefined {
  const row = db.prepare(`SELECT value FROM ${NODE_TABLE} WHERE name = ?`).get(name);
  return row === undefined ? undefined : String(row[0]);
}

export function writeFact(db: Database, name: string, value: string): void {
  db.prepare(`INSERT INTO ${NODE_TABLE} VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`).run(
    name,
    value,
  );
}

/** Does this database belong to a node, or did it ever? */
export function hasOwnTables(db: Database): boolean {
  return db.prepare("SELECT 1 FROM main.sqlite_schema WHERE name = ?").get(`${PREFIX}node`) !== undefined;
}

/** What a clone must not have: it becomes a node of its own, and keeps only how the cluster is laid out. */
export function forgetIdentity(db: Database): void {
  db.exec(`DELETE FROM ${NODE_TABLE} WHERE name = 'id'`);
}

/** Drops every trigger and table of Marmot. @returns their names */
export function removeAll(db: Database): string[] {
  const mine = "name LIKE '\\_\\_marmot\\_\\_%' ESCAPE '\\'";
  const objects = db.prepare(
    `SELECT type, name FROM main.sqlite_schema WHERE type IN ('trigger', 'table') AND ${mine} ORDER BY type DESC, name`,
  ).all();
  for (const [type, name] of objects) db.exec(`DROP ${type === "trigger" ? "TRIGGER" : "TABLE"} ${id(String(name))}`);
  return objects.map(([, name]) => String(name));
}
