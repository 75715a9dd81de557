/** Changes of a schema, drawn one after the other: every node makes all of them, in this order, each at a time of its own. */
import type { Random } from "../support/random.ts";

/** Tables, and their columns besides id: name → whether it must be unique */
export type Tables = ReadonlyMap<string, ReadonlyMap<string, boolean>>;

export interface Migrations {
  /** what every file begins with */
  readonly sql: readonly string[];
  readonly later: readonly string[];
  /** the tables after so many of them */
  readonly tables: readonly Tables[];
  /** tables get other names: then nodes write rows of their own, since what one says of a name that another does not know comes late */
  readonly renames: boolean;
}

const NAMES = ["order", "a b", "x-y", "Ünï", "it's", "select", "n", "V", "(", "🐟", "a.b", "val_n"];
const id = (name: string) => `"${name}"`;

/** @param uniques may a column become UNIQUE? */
export function drawMigrations(random: Random, uniques: boolean): Migrations {
  const renames = random.below(2) === 0;
  const draw = new Draw(random, renames, uniques);
  const tables: Tables[] = [new Map([["t", new Map([["v", false]])]])];
  const later: string[] = [];
  for (let i = 2 + random.below(5); i > 0; i--) {
    const next = new Map([...tables.at(-1)!].map(([name, columns]) => [name, new Map(columns)]));
    later.push(draw.change(next));
    tables.push(next);
  }
  return { sql: ["CREATE TABLE t(id INTEGER PRIMARY KEY, v)"], later, tables, renames };
}

class Draw {
  private count = 0;
  private readonly uniques: boolean;

  constructor(private readonly random: Random, private readonly renames: boolean, uniques: boolean) {
    // a node that makes the values of a column unique writes rows of others
    this.uniques = uniques && !renames;
  }

  /** Changes `tables`. @returns the SQL that does it */
  change(tables: Map<string, Map<string, boolean>>): string {
    const { random } = this;
    const table = random.pick([...tables.keys()]);
    const columns = tables.get(table)!;
    const column = columns.size > 0 ? random.pick([...columns.keys()]) : undefined;
    const x = random.below(9);
    if (x === 0) return this.create(tables);
    if (x === 1 && this.renames) return this.renameTable(tables, table);
    if (x === 2 && column !== undefined) return this.renameColumn(columns, table, column);
    if (x === 3) return this.rebuild(tables, table, columns);
    if (x === 4 && column !== undefined && this.uniques) return this.addIndex(columns, table, column);
    if (x === 5 && column !== undefined && !columns.get(column)) return this.dropColumn(columns, table, column);
    if (x === 6 && tables.size > 1) {
      tables.delete(table);
      return `DROP TABLE ${id(table)}`;
    }
    return this.addColumn(columns, table);
  }

  private name(): string {
    return `${this.random.pick(NAMES)}${++this.count}`;
  }

  private addColumn(columns: Map<string, boolean>, table: string): string {
    const column = this.name();
    columns.set(column, false);
    const rest = this.random.pick(["", " DEFAULT 7", " NOT NULL DEFAULT 'none'", " TEXT DEFAULT NULL"]);
    return `ALTER TABLE ${id(table)} ADD COLUMN ${id(column)}${rest}`;
  }

  private create(tables: Map<string, Map<string, boolean>>): string {
    const [table, column] = [this.name(), this.name()];
    tables.set(table, new Map([[column, false]]));
    return `CREATE TABLE ${id(table)}(id INTEGER PRIMARY KEY, ${id(column)})`;
  }

  private renameTable(tables: Map<string, Map<string, boolean>>, table: string): string {
    const now = this.name();
    tables.set(now, tables.get(table)!);
    tables.delete(table);
    return `ALTER TABLE ${id(table)} RENAME TO ${id(now)}`;
  }

  private renameColumn(columns: Map<string, boolean>, table: string, column: string): string {
    const now = this.name();
    columns.set(now, columns.get(column)!);
    columns.delete(column);
    return `ALTER TABLE ${id(table)} RENAME COLUMN ${id(column)} TO ${id(now)}`;
  }

  /** As frameworks do it: a new table, its rows copied, under the old name. Columns are dropped, and one is new. */
  private rebuild(tables: Map<string, Map<string, boolean>>, table: string, columns: Map<string, boolean>): string {
    const kept = [...columns].filter(([, unique]) => unique || this.random.below(3) > 0);
    const added = this.name();
    const names = ["id", ...kept.map(([name]) => id(name))].join(", ");
    const declared = kept.map(([name, unique]) => `, ${id(name)}${unique ? " UNIQUE" : ""}`).join("");
    const copy = id(`new__${table}`);
    tables.set(table, new Map([[added, false], ...kept]));
    return `BEGIN IMMEDIATE; CREATE TABLE ${copy}(id INTEGER PRIMARY KEY, ${id(added)} DEFAULT 3${declared});
      INSERT INTO ${copy}(${names}) SELECT ${names} FROM ${id(table)}; DROP TABLE ${id(table)};
      ALTER TABLE ${copy} RENAME TO ${id(table)}; COMMIT`;
  }

  /** SQLite drops no column that Marmot's triggers name. */
  private dropColumn(columns: Map<string, boolean>, table: string, column: string): string {
    columns.delete(column);
    const triggers = ["insert", "update", "key", "delete"].map((kind) =>
      `DROP TRIGGER IF EXISTS ${id(`__marmot__${table}_${kind}`)}`
    );
    return `BEGIN IMMEDIATE; ${triggers.join("; ")}; ALTER TABLE ${id(table)} DROP COLUMN ${id(column)}; COMMIT`;
  }

  private addIndex(columns: Map<string, boolean>, table: string, column: string): string {
    columns.set(column, true);
    return `BEGIN IMMEDIATE; UPDATE ${id(table)} SET ${id(column)} = 'u' || id;
      CREATE UNIQUE INDEX ${id(this.name())} ON ${id(table)}(${id(column)}); COMMIT`;
  }
}

/** Writes a row, or deletes it. */
export function migratingStatement(tables: Tables, row: number, random: Random): string {
  const table = random.pick([...tables.keys()]);
  const columns = [...tables.get(table)!];
  const value = (unique: boolean) => unique ? `'u' || ${row}` : String(random.below(100));
  const x = random.below(5);
  if (x === 0) return `DELETE FROM ${id(table)} WHERE id = ${row}`;
  if (x < 3 && columns.length > 0) {
    const [column, unique] = random.pick(columns);
    return `UPDATE ${id(table)} SET ${id(column)} = ${value(unique)} WHERE id = ${row}`;
  }
  const names = ["id", ...columns.map(([name]) => id(name))].join(", ");
  const values = [row, ...columns.map(([, unique]) => value(unique))].join(", ");
  return `REPLACE INTO ${id(table)}(${names}) VALUES (${values})`;
}

/** The table that is without Marmot's triggers after a change. */
export function rebuiltTable(sql: string): string | undefined {
  return /^BEGIN IMMEDIATE; (?:CREATE TABLE "new__|DROP TRIGGER IF EXISTS "__marmot__)/.test(sql)
    ? /(?:RENAME TO|ALTER TABLE) "([^"]+)"(?: DROP COLUMN|; COMMIT)/.exec(sql)?.[1]
    : undefined;
}
