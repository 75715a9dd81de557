/** Tables with triggers of the application, foreign keys and a full-text index: what they set off at the origin is captured there. */
import type { Random } from "../support/random.ts";
import { drawTable, simpleTable, type TableSpec } from "./tables.ts";

export interface TriggerSchema {
  readonly tables: readonly TableSpec[];
  /** triggers and indexes that every file begins with */
  readonly before: readonly string[];
  /** made while Marmot runs, on each node at a time of its own */
  readonly after: readonly string[];
}

const letters = (random: Random) => `'${random.pick("abcd")}'`;
const few = (random: Random) => random.below(8) === 0 ? "NULL" : String(random.below(5));

export function drawTriggerSchema(random: Random): TriggerSchema {
  // alone, so that enough happens to it: rows that take the place of their own parents are rare
  if (random.below(6) === 0) return { tables: [tree(random)], before: [], after: [] };
  const tables = [
    simpleTable("a", "CREATE TABLE a(id INTEGER PRIMARY KEY, v, w)", few),
    simpleTable("b", `CREATE TABLE b(id INTEGER PRIMARY KEY, v ${random.pick(["", "UNIQUE"])}, w)`, few),
  ];
  const others: string[] = [];
  if (random.below(2) === 0) family(tables, random);
  if (random.below(2) === 0) tables.push(tree(random));
  if (random.below(2) === 0) notes(tables, others);
  if (random.below(3) === 0) tables.push(drawTable("t1", random));
  const refuses = random.below(2) === 0;
  const before = Array.from({ length: random.below(3) }, (_, i) => trigger(`before${i}`, random, refuses));
  const after = Array.from({ length: random.below(4) }, (_, i) => trigger(`after${i}`, random, refuses));
  return { tables, before: [...others, ...before], after };
}

/** A parent whose key changes, and goes, with its children. */
function family(tables: TableSpec[], random: Random): void {
  const onDelete = random.pick(["CASCADE", "SET NULL", "CASCADE", "SET DEFAULT"]);
  tables.push(
    simpleTable("parent", "CREATE TABLE parent(id TEXT PRIMARY KEY NOT NULL, v, w)", few, letters),
    simpleTable(
      "child",
      `CREATE TABLE child(id INTEGER PRIMARY KEY, v TEXT REFERENCES parent ON UPDATE CASCADE ON DELETE ${onDelete}, w)`,
      (r) => r.below(4) === 0 ? "NULL" : letters(r),
      (r) => String(r.below(6)),
    ),
  );
}

/** Its rows may be their own parents: then a key that changes, changes the row once more. */
function tree(random: Random): TableSpec {
  const onDelete = random.pick(["CASCADE", "SET NULL"]);
  const parent = `TEXT REFERENCES tree ON UPDATE CASCADE ON DELETE ${onDelete}`;
  const values = (r: Random) => r.below(4) === 0 ? "NULL" : letters(r);
  return simpleTable("tree", `CREATE TABLE tree(id TEXT PRIMARY KEY NOT NULL, v ${parent}, w)`, values, letters);
}

/** As the documentation of FTS5 has it. */
function notes(tables: TableSpec[], others: string[]): void {
  tables.push(
    simpleTable(
      "notes",
      "CREATE TABLE notes(id INTEGER PRIMARY KEY, v, w)",
      (r) => r.pick(["'red'", "'blue sky'", "''", "'tea'"]),
    ),
  );
  const values = (row: string) => `${row}.id, ${row}.v, ${row}.w`;
  const remove = `INSERT INTO fts(fts, rowid, v, w) VALUES ('delete', ${values("OLD")})`;
  const add = `INSERT INTO fts(rowid, v, w) VALUES (${values("NEW")})`;
  others.push(
    "CREATE VIRTUAL TABLE fts USING fts5(v, w, content = 'notes', content_rowid = 'id')",
    `CREATE TRIGGER notes_ai AFTER INSERT ON notes BEGIN ${add}; END`,
    `CREATE TRIGGER notes_ad AFTER DELETE ON notes BEGIN ${remove}; END`,
    `CREATE TRIGGER notes_au AFTER UPDATE ON notes BEGIN ${remove}; ${add}; END`,
  );
}

/**
 * Over a and b; nothing in it depends on what only one node has.
 * @param refuses may it refuse a change? Then no UPDATE says OR, which compiles triggers inside themselves: a table whose
 * validation can't be told apart then is parked by name
 */
function trigger(name: string, random: Random, refuses: boolean): string {
  const table = random.pick(["a", "b"]);
  const other = random.pick(["a", "b"]);
  const event = random.pick(["INSERT", "UPDATE", "UPDATE OF v", "DELETE"]);
  const row = event === "DELETE" ? "OLD" : "NEW";
  const when = random.pick([
    "",
    "",
    ` WHEN ${row}.v > 1`,
    ` WHEN EXISTS (SELECT 1 FROM ${other} WHERE id = ${row}.id)`,
  ]);
  const steps = Array.from({ length: 1 + random.below(2) }, () =>
    random.pick([
      `UPDATE ${table} SET w = coalesce(w, 0) + 10 WHERE id = ${row}.id AND coalesce(w, 0) < 30`,
      `UPDATE ${other} SET w = ${row}.v WHERE id = ${row}.id + 1`,
      `INSERT OR REPLACE INTO ${other} VALUES (${row}.id + 1, ${row}.v, 'made')`,
      `INSERT OR IGNORE INTO ${other} VALUES (${row}.id + 2, NULL, ${row}.w)`,
      `DELETE FROM ${other} WHERE id = ${row}.id + 3`,
      refuses
        ? `SELECT RAISE(ABORT, 'constraint failed') WHERE ${row}.v = 4`
        : `UPDATE OR REPLACE ${other} SET v = ${row}.w WHERE id = ${row}.id`,
    ]));
  return `CREATE TRIGGER IF NOT EXISTS ${name} ${
    random.pick(["BEFORE", "AFTER", "AFTER"])
  } ${event} ON ${table}${when} ` +
    `BEGIN ${steps.join("; ")}; END`;
}
