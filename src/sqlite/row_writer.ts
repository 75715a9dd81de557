/** Writes rows of one table as the stream orders them: upsert, delete, and the rows that a UNIQUE value displaces. */
import { type Change, OP_DELETE, SqlText, type SqlValue } from "../change.ts";
import type { Database, DriverValue, Statement } from "../database.ts";
import { canonicalKey } from "../shard.ts";
import { scan } from "./index_sql.ts";
import { COLUMNS } from "./own_tables.ts";
import { fold, id } from "./quote.ts";
import type { Table } from "./schema.ts";
import type { TriggerPolicy } from "./trigger_policy.ts";
import { exactColumns, placeholder, readExact, type TextEncoding, toDriver } from "./values.ts";

/** statements kept for a table; kinds × types of values that rows really have stay far below */
const STATEMENT_LIMIT = 256;

/**
 * Rows that one statement writes: a call of the driver costs as much as the rest of a row's insert (on Deno 300,000 rows/s
 * one by one, 550,000 with 8, 1,000,000 with 32). Runs are cut into these sizes, so that few statements are compiled.
 */
const BULK_ROWS = [32, 8, 2] as const;
/** … and the values that it binds; a table of many columns gains little */
const BULK_VALUES = 512;

/** The columns of a table that a message carries. */
export interface Carried {
  /** indexes into the table's columns */
  readonly columns: readonly number[];
  /** for each of `columns`, and in the same order, its place in the message's values */
  readonly places: readonly number[];
}

/** What a write touched besides its own row: keys of displaced rows. */
export type Displaced = (row: readonly SqlValue[]) => void;

export class RowWriter {
  private readonly statements = new Map<string, Statement>();
  private readonly twin: Twin | undefined;
  private readonly name: string;
  private readonly keyTerms: readonly string[];
  private readonly orAbort: string;
  private readonly allColumns: string;

  constructor(
    private readonly db: Database,
    readonly table: Table,
    private readonly policy: TriggerPolicy,
    private readonly encoding: TextEncoding,
  ) {
    this.name = `main.${id(table.name)}`;
    this.keyTerms = table.key.map((column, i) => id(column) + table.keyCollates[i]!);
    // also what a trigger's own OR says is overruled then, which is why it is not always said
    this.orAbort = table.conflictClause ? " OR ABORT" : "";
    this.allColumns = exactColumns(table.columns.map((column) => `r.${id(column)}`));
    if (table.uniques.length > 0) this.twin = new Twin(db, table, policy, encoding);
  }

  /** The row of a key, all columns; undefined if there is none. */
  read(key: readonly SqlValue[]): SqlValue[] | undefined {
    const row = this.statement(
      "read",
      key,
      (marks) => `SELECT ${this.allColumns} FROM ${this.name} AS r WHERE ${this.is(marks)}`,
    )
      .get(...this.bind(key));
    return row === undefined ? undefined : readExact(row, 0, this.table.columns.length, this.encoding);
  }

  /**
   * INSERT … ON CONFLICT: the fast way, for a table on which no trigger of the application fires. Throws on a clash of
   * another UNIQUE value; nothing is changed then, and `upsert` does it.
   */
  insertOrUpdate(carried: Carried, values: readonly SqlValue[], key: readonly SqlValue[]): void {
    this.insertRows(carried, [values], !this.keyIsExact(key));
  }

  /** Can `insertRun` write upserts that carry these columns? An insert needs all, and a guard lets only one row pass. */
  takesRuns({ columns }: Carried): boolean {
    return columns.length === this.table.columns.length && !this.policy.guards(this.table);
  }

  /** How many of the changes, from `from` on, `insertRun` writes at once: upserts with text in the same columns. Or 0. */
  runLength({ columns, places }: Carried, changes: readonly Change[], from: number): number {
    const first = changes[from]!.values;
    const isLike = ({ op, values }: Change) =>
      op !== OP_DELETE && places.every((place) => values[place] instanceof SqlText === first[place] instanceof SqlText);
    const limit = Math.min(BULK_ROWS[0], BULK_VALUES / columns.length, changes.length - from);
    let length = 0;
    while (length < limit && isLike(changes[from + length]!)) length++;
    return BULK_ROWS.find((size) => size <= length) ?? 0;
  }

  /** `insertOrUpdate` for changes that `runLength` found alike, in their order: a later one of a row wins. */
  insertRun(carried: Carried, changes: readonly Change[], keys: readonly SqlValue[][]): void {
    this.insertRows(carried, changes.map(({ values }) => values), !keys.every((key) => this.keyIsExact(key)));
  }

  /** The same for rows that are new: throws on a clash of any UNIQUE value, that of the key too, with nothing changed. */
  insertNewRun(carried: Carried, changes: readonly Change[]): void {
    const rows = changes.map(({ values }) => values);
    this.runRows(`new ${rows.length}`, carried, rows, (marks) => this.insertInto(carried, marks, rows.length));
  }

  /** UPDATE of what is carried. @returns whether the row was there */
  updateBlind(carried: Carried, values: readonly SqlValue[], key: readonly SqlValue[]): boolean {
    const withKey = !this.keyIsExact(key);
    const set = carried.columns.map((_, i) => i).filter((i) =>
      withKey || !this.table.keyIndexes.includes(carried.columns[i]!)
    );
    if (set.length === 0) return this.read(key) !== undefined;
    return this.update(set.map((i) => carried.columns[i]!), set.map((i) => values[carried.places[i]!]!), key) > 0;
  }

  /**
   * Upsert that looks first: leaves an identical row alone, writes only the columns that differ, and displaces what is
   * in the way. @returns the row as it was, undefined if there was none
   */
  upsert(
    carried: Carried,
    values: readonly SqlValue[],
    key: readonly SqlValue[],
    displaced: Displaced,
  ): SqlValue[] | undefined {
    if (this.table.nullableKey && key.includes(null)) this.dropTwins(key, displaced);
    const before = this.read(key);
    const row: (SqlValue | undefined)[] = before === undefined ? this.table.columns.map(() => undefined) : [...before];
    carried.columns.forEach((column, i) => row[column] = values[carried.places[i]!]!);
    if (before === undefined) {
      this.displacing(row, displaced, () => this.insert(carried, values));
    } else {
      const changed = carried.columns.filter((column) => !same(before[column]!, row[column]!));
      if (changed.length > 0) {
        this.displacing(row, displaced, () => this.update(changed, changed.map((column) => row[column]!), key));
      }
    }
    return before;
  }

  /** @returns whether there was a row */
  remove(key: readonly SqlValue[]): boolean {
    const statement = this.statement("delete", key, (marks) => `DELETE FROM ${this.name} WHERE ${this.is(marks)}`);
    return this.policy.write(this.table, () => statement.run(...this.bind(key))) > 0;
  }

  keyOf(row: readonly (SqlValue | undefined)[]): SqlValue[] {
    return this.table.keyIndexes.map((index) => row[index] ?? null);
  }

  canonical(key: readonly SqlValue[]): string {
    return canonicalKey(key, this.table.collations);
  }

  private insertRows(carried: Carried, rows: readonly (readonly SqlValue[])[], withKey: boolean): void {
    this.policy.write(this.table, () =>
      this.runRows(`insert ${rows.length} ${withKey}`, carried, rows, (marks) => {
        return this.insertSql(carried, marks, rows.length, withKey);
      }));
  }

  private insert(carried: Carried, values: readonly SqlValue[]): number {
    return this.runRows("new 1", carried, [values], (marks) => this.insertInto(carried, marks, 1));
  }

  private runRows(
    kind: string,
    carried: Carried,
    rows: readonly (readonly SqlValue[])[],
    sql: (marks: readonly string[]) => string,
  ): number {
    const row = carried.places.map((place) => rows[0]![place]!);
    const statement = this.statement(`${kind} ${carried.columns.join()}`, row, sql);
    const bound: DriverValue[] = [];
    for (const values of rows) {
      for (const place of carried.places) bound.push(toDriver(values[place]!, this.encoding));
    }
    return statement.run(...bound);
  }

  private update(columns: readonly number[], values: readonly SqlValue[], key: readonly SqlValue[]): number {
    const all = [...values, ...key];
    const statement = this.statement(`update ${columns.join()}`, all, (marks) => {
      const set = columns.map((column, i) => `${id(this.table.columns[column]!)} = ${marks[i]}`).join(", ");
      return `UPDATE${this.orAbort} ${this.name} SET ${set} WHERE ${this.is(marks.slice(columns.length))}`;
    });
    return this.policy.write(this.table, () => statement.run(...this.bind(all)));
  }

  /** Runs `write`; where a UNIQUE value is in the way, deletes the other rows that hold it, and runs it again. */
  private displacing(row: readonly (SqlValue | undefined)[], displaced: Displaced, write: () => number): void {
    let changed: number;
    try {
      changed = write();
    } catch (error) {
      if (this.twin === undefined || !isUniqueViolation(error)) throw error;
      const own = this.canonical(this.keyOf(row));
      for (const key of this.twin.conflicts(row)) {
        if (this.canonical(key) === own) continue;
        const other = this.read(key);
        if (other === undefined) continue;
        displaced(other);
        if (!this.remove(key)) throw new Error("a row that holds the same UNIQUE value can't be deleted");
      }
      changed = write();
    }
    if (changed === 0) throw new Error("a trigger of the application keeps the row from being written");
  }

  /** A key with NULL may stand in several rows; the stream knows one. */
  private dropTwins(key: readonly SqlValue[], displaced: Displaced): void {
    const count = () =>
      Number(
        this.statement("count", key, (marks) => `SELECT count(*) FROM ${this.name} WHERE ${this.is(marks)}`).get(
          ...this.bind(key),
        )![0],
      );
    while (count() > 1) {
      displaced(this.read(key)!);
      const rowid = id(this.table.rowid ?? "rowid");
      const one = `DELETE FROM ${this.name} WHERE ${rowid} = (SELECT min(${rowid}) FROM ${this.name} WHERE `;
      const statement = this.statement("delete one", key, (marks) => `${one}${this.is(marks)})`);
      const gone = this.policy.write(this.table, () => statement.run(...this.bind(key)));
      if (gone === 0) throw new Error("rows that share a NULL key can't be told apart");
    }
  }

  private insertInto(carried: Carried, marks: readonly string[], rows: number): string {
    const filled = fillings(this.table, (column) => carried.columns.includes(column));
    const columns = [...carried.columns, ...filled.columns].map((column) => id(this.table.columns[column]!));
    const row = `(${[...marks, ...filled.sql].join(", ")})`;
    const values = Array.from({ length: rows }, () => row).join(", ");
    return `INSERT${this.orAbort} INTO ${this.name}(${columns.join(", ")}) VALUES ${values}`;
  }

  private insertSql(carried: Carried, marks: readonly string[], rows: number, withKey: boolean): string {
    const columns = carried.columns.filter((column) => withKey || !this.table.keyIndexes.includes(column)).map((
      column,
    ) => id(this.table.columns[column]!));
    const action = columns.length === 0
      ? "DO NOTHING"
      : `DO UPDATE SET ${columns.map((column) => `${column} = excluded.${column}`).join(", ")}`;
    return `${this.insertInto(carried, marks, rows)} ON CONFLICT (${this.keyTerms.join(", ")}) ${action}`;
  }

  /** Equal keys may differ in bytes (NOCASE, 1 and 1.0), and then the key is written too. */
  private keyIsExact(key: readonly SqlValue[]): boolean {
    if (this.table.assignedKey) return true;
    return key.every((value, i) => {
      return typeof value !== "number" && typeof value !== "bigint" &&
        this.table.collations[i]!.toUpperCase() === "BINARY";
    });
  }

  private is(marks: readonly string[]): string {
    return this.keyTerms.map((term, i) => `${term} IS ${marks[i]}`).join(" AND ");
  }

  private statement(kind: string, values: readonly SqlValue[], sql: (marks: string[]) => string): Statement {
    let name = `${kind} `;
    for (const value of values) name += value instanceof SqlText ? "t" : ".";
    let statement = this.statements.get(name);
    if (statement === undefined) {
      if (this.statements.size >= STATEMENT_LIMIT) this.statements.clear();
      statement = this.db.prepare(sql(values.map((value) => placeholder(value, this.encoding))));
      this.statements.set(name, statement);
    }
    return statement;
  }

  private bind(values: readonly SqlValue[]): DriverValue[] {
    return values.map((value) => toDriver(value, this.encoding));
  }
}

/** A DEFAULT that gives all rows one value. */
const isConstant = (sql: string) => sql !== "NULL" && !/\(|^CURRENT_/i.test(sql);

/**
 * Columns that the origin of a new row does not know: a migration added them here. Their value is what it gave to the rows
 * it found, else the DEFAULT or the zero of the type. Other DEFAULTs are left to SQLite.
 */
function fillings(table: Table, given: (column: number) => boolean): { columns: number[]; sql: string[] } {
  const other = table.defaults.map((sql, i) => isConstant(sql) ? sql : table.zeros[i]);
  const columns = table.columns.map((_, column) => column).filter((i) => other[i] != null && !given(i));
  const sql = columns.map((column) => {
    const where = [fold(table.name), fold(table.columns[column]!)].map((name) => `'${name.replaceAll("'", "''")}'`);
    const fill = `SELECT fill FROM main.${COLUMNS} WHERE table_name = ${where[0]} AND name = ${where[1]}`;
    return `coalesce((${fill}), ${other[column]})`;
  });
  return { columns, sql };
}

/** Same storage class, same bytes. */
export function same(a: SqlValue, b: SqlValue): boolean {
  if (a instanceof SqlText) return b instanceof SqlText && sameBytes(a.bytes, b.bytes);
  if (a instanceof Uint8Array) return b instanceof Uint8Array && sameBytes(a, b);
  return Object.is(a, b);
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

export function isUniqueViolation(error: unknown): boolean {
  return error instanceof Error && /UNIQUE constraint failed|PRIMARY KEY must be unique/.test(error.message);
}

/**
 * An empty TEMP copy of a table that takes the row to be written, so that SQLite itself computes what a UNIQUE index
 * over expressions, generated columns or a part of the rows would hold for it.
 */
class Twin {
  private readonly name: string;
  private readonly queries: Statement[];

  constructor(
    private readonly db: Database,
    private readonly table: Table,
    policy: TriggerPolicy,
    private readonly encoding: TextEncoding,
  ) {
    this.name = `temp.${id(`marmot_twin_${table.name}`)}`;
    const rest = table.sql.slice(scan(table.sql, 0, (char) => char === "("));
    db.exec(`DROP TABLE IF EXISTS ${this.name}`);
    policy.withStubs(() => db.exec(`CREATE TABLE ${this.name}${rest}`));
    const key = exactColumns(table.key.map(id));
    this.queries = table.uniques.map(({ terms, where }) => {
      const equal = terms.map(({ sql, collation }) =>
        `${sql} COLLATE ${id(collation)} = (SELECT ${sql} FROM ${this.name})`
      );
      if (where !== null) equal.push(`(${where})`, `(SELECT (${where}) FROM ${this.name})`);
      return db.prepare(`SELECT ${key} FROM main.${id(table.name)} WHERE ${equal.join(" AND ")}`);
    });
  }

  /**
   * Keys of the rows that hold one of `row`'s UNIQUE values, its own perhaps among them.
   * @param row undefined where the column takes its default
   */
  conflicts(row: readonly (SqlValue | undefined)[]): SqlValue[][] {
    this.db.exec(`DELETE FROM ${this.name}`);
    const filled = fillings(this.table, (column) => row[column] !== undefined);
    const given = this.table.columns.map((_, column) => column).filter((column) => row[column] !== undefined);
    const names = [...given, ...filled.columns].map((column) => id(this.table.columns[column]!));
    const values = row.filter((value) => value !== undefined);
    const marks = values.map((value) => placeholder(value, this.encoding));
    const into = `INSERT INTO ${this.name}(${names.join(", ")}) VALUES (${[...marks, ...filled.sql].join(", ")})`;
    this.db.prepare(into).run(...values.map((value) => toDriver(value, this.encoding)));
    return this.queries.flatMap((query) =>
      query.all().map((found) => readExact(found, 0, this.table.key.length, this.encoding))
    );
  }
}
