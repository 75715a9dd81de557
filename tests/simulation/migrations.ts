/** Changes of a schema, drawn one after the other: every node makes all of them, in this order, each at a time of its own. */
import { dropColumn } from "../support/drop_column.ts";
import type { Random } from "../support/random.ts";

export interface Column {
  readonly unique: boolean;
  readonly type: string;
  /** its type was another one: it gets no third, since a node may be only one behind (docs/DESIGN.md, Another type of a column) */
  readonly retyped: boolean;
}

/** Tables, and their columns besides id */
export type Tables = ReadonlyMap<string, ReadonlyMap<string, Column>>;
type Columns = Map<string, Column>;

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
/** A column that has one of them and gets another gets the next one. */
const TYPES = ["", "TEXT", "INTEGER", "BLOB", "REAL", "DATETIME"];
/** What a column of one type stores as it is, and one of another changes */
const ODD = ["'007'", "1.5", "'1e3'", "7.0", "'x'", "X'37'", "'-1.50'", "NULL"];
const id = (name: string) => `"${name}"`;
const columnOf = (type: string): Column => ({ unique: false, type, retyped: false });

/** @param uniques may a column become UNIQUE? */
export function drawMigrations(random: Random, uniques: boolean): Migrations {
  const renames = random.below(2) === 0;
  const draw = new Draw(random, renames, uniques);
  const tables: Tables[] = [new Map([["t", new Map([["v", columnOf("INTEGER")]])]])];
  const later: string[] = [];
  for (let i = 2 + random.below(5); i > 0; i--) {
    const next = new Map([...tables.at(-1)!].map(([name, columns]) => [name, new Map(columns)]));
    later.push(draw.change(next));
    tables.push(next);
  }
  return { sql: ["CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER)"], later, tables, renames };
}

class Draw {
  private count = 0;
  private readonly uniques: boolean;

  constructor(private readonly random: Random, private readonly renames: boolean, uniques: boolean) {
    // a node that makes the values of a column unique writes rows of others
    this.uniques = uniques && !renames;
  }

  /** Changes `tables`. @returns the SQL that does it */
  change(tables: Map<string, Columns>): string {
    const { random } = this;
    const table = random.pick([...tables.keys()]);
    const columns = tables.get(table)!;
    const column = columns.size > 0 ? random.pick([...columns.keys()]) : undefined;
    const x = random.below(9);
    if (x === 0) return this.create(tables);
    if (x === 1 && this.renames) return this.renameTable(tables, table);
    if (x === 2 && column !== undefined) return this.renameColumn(columns, table, column);
    if (x === 3 || (x === 6 && tables.size === 1)) return this.rebuild(tables, table, columns);
    if (x === 4 && column !== undefined && this.uniques) return this.addIndex(columns, table, column);
    if (x === 5 && column !== undefined && !columns.get(column)!.unique) return this.dropColumn(columns, table, column);
    if (x === 6) {
      tables.delete(table);
      return `DROP TABLE ${id(table)}`;
    }
    return this.addColumn(columns, table);
  }

  private name(): string {
    return `${this.random.pick(NAMES)}${++this.count}`;
  }

  private addColumn(columns: Columns, table: string): string {
    const column = this.name();
    const rest = this.random.pick(["", " DEFAULT 7", " NOT NULL DEFAULT 'none'", " DEFAULT NULL"]);
    const type = TYPES[this.count % TYPES.length]!;
    columns.set(column, columnOf(type));
    return `ALTER TABLE ${id(table)} ADD COLUMN ${id(column)} ${type}${rest}`;
  }

  private create(tables: Map<string, Columns>): string {
    const [table, column] = [this.name(), this.name()];
    tables.set(table, new Map([[column, columnOf("TEXT")]]));
    return `CREATE TABLE ${id(table)}(id INTEGER PRIMARY KEY, ${id(column)} TEXT)`;
  }

  private renameTable(tables: Map<string, Columns>, table: string): string {
    const now = this.name();
    tables.set(now, tables.get(table)!);
    tables.delete(table);
    return `ALTER TABLE ${id(table)} RENAME TO ${id(now)}`;
  }

  private renameColumn(columns: Columns, table: string, column: string): string {
    const now = this.name();
    columns.set(now, columns.get(column)!);
    columns.delete(column);
    return `ALTER TABLE ${id(table)} RENAME COLUMN ${id(column)} TO ${id(now)}`;
  }

  /**
   * As frameworks do it: a new table, its rows copied, under the old name. Columns are dropped, and get another type or a new
   * one beside them, for which nodes that have not migrated would wait anyway.
   */
  private rebuild(tables: Map<string, Columns>, table: string, columns: Columns): string {
    const kept = [...columns].flatMap(([name, column]): [string, Column][] => {
      if (column.unique) return [[name, column]];
      if (this.random.below(3) === 0) return [];
      return [[name, column.retyped ? column : this.retype(column)]];
    });
    const name = this.name();
    const retyped = kept.some(([name, { type }]) => columns.get(name)!.type !== type);
    const added: Columns = new Map(retyped ? [] : [[name, columnOf("")]]);
    const names = ["id", ...kept.map(([name]) => id(name))].join(", ");
    const declared = kept.map(([name, { unique, type }]) => `, ${id(name)} ${type}${unique ? " UNIQUE" : ""}`).join("");
    const copy = id(`new__${table}`);
    tables.set(table, new Map([...added, ...kept]));
    const more = retyped ? "" : `, ${id(name)} DEFAULT 3`;
    return `BEGIN IMMEDIATE; CREATE TABLE ${copy}(id INTEGER PRIMARY KEY${more}${declared});
      INSERT INTO ${copy}(${names}) SELECT ${names} FROM ${id(table)}; DROP TABLE ${id(table)};
      ALTER TABLE ${copy} RENAME TO ${id(table)}; COMMIT`;
  }

  private retype(column: Column): Column {
    const type = TYPES[(TYPES.indexOf(column.type) + 1 + this.count % (TYPES.length - 1)) % TYPES.length]!;
    return { ...column, type, retyped: true };
  }

  private dropColumn(columns: Columns, table: string, column: string): string {
    columns.delete(column);
    return dropColumn(table, column);
  }

  private addIndex(columns: Columns, table: string, column: string): string {
    columns.set(column, { ...columns.get(column)!, unique: true });
    return `BEGIN IMMEDIATE; UPDATE ${id(table)} SET ${id(column)} = 'u' || id;
      CREATE UNIQUE INDEX ${id(this.name())} ON ${id(table)}(${id(column)}); COMMIT`;
  }
}

/** Writes a row, or deletes it. */
export function migratingStatement(tables: Tables, row: number, random: Random): string {
  const table = random.pick([...tables.keys()]);
  const columns = [...tables.get(table)!];
  const value = ({ unique }: Column) => unique ? `'u' || ${row}` : valueOf(random.below(100));
  const x = random.below(5);
  if (x === 0) return `DELETE FROM ${id(table)} WHERE id = ${row}`;
  if (x < 3 && columns.length > 0) {
    const [name, column] = random.pick(columns);
    return `UPDATE ${id(table)} SET ${id(name)} = ${value(column)} WHERE id = ${row}`;
  }
  const names = ["id", ...columns.map(([name]) => id(name))].join(", ");
  const values = [row, ...columns.map(([, column]) => value(column))].join(", ");
  return `REPLACE INTO ${id(table)}(${names}) VALUES (${values})`;
}

function valueOf(number: number): string {
  return number < 50 ? String(number) : ODD[number % ODD.length]!;
}

/** The table that is without Marmot's triggers after a change. */
export function rebuiltTable(sql: string): string | undefined {
  return /^BEGIN IMMEDIATE; (?:CREATE TABLE "new__|DROP TRIGGER IF EXISTS "__marmot__)/.test(sql)
    ? /(?:RENAME TO|ALTER TABLE) "([^"]+)"(?: DROP COLUMN|; COMMIT)/.exec(sql)?.[1]
    : undefined;
}
