/** Keeps change logs, and the entries in them, in step with their tables while the schema changes. */
import { OP_DELETE, OP_UPDATE } from "../change.ts";
import type { Database } from "../database.ts";
import { sqliteProblem } from "./connection.ts";
import { fold, id, knownCollate } from "./quote.ts";
import { PREFIX, type Table } from "./schema.ts";
import { logName, valueColumn } from "./triggers.ts";

/** [column then, column now] */
export type ColumnRename = readonly [then: string, now: string];

/** Names that no log and no column of one has */
const MOVING = `${PREFIX}moving_`;
const COPY = "marmot_log_copy";

/** A key's column of a row `t`, which compares as the key does. */
function keyTerm({ key, collations }: Table, column: string): string {
  return `t.${id(column)}${knownCollate(collations[key.indexOf(column)] ?? "BINARY")}`;
}

export class LogUpkeep {
  constructor(private readonly db: Database) {}

  has(table: string): boolean {
    const sql = "SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = ? COLLATE NOCASE";
    return this.db.prepare(sql).get(logName(table)) !== undefined;
  }

  isEmpty(table: string): boolean {
    return this.db.prepare(`SELECT 1 FROM ${id(logName(table))} LIMIT 1`).get() === undefined;
  }

  /** 0 when the log is empty */
  highest(table: string): number {
    return Number(this.db.prepare(`SELECT max(seq) FROM ${id(logName(table))}`).get()![0] ?? 0);
  }

  drop(table: string): void {
    this.db.exec(`DROP TABLE ${id(logName(table))}`);
  }

  /** Gives logs other names, all at once: tables may have taken each other's. */
  rename(tables: readonly ColumnRename[]): void {
    tables.forEach(([then], i) => this.renameTo(logName(then), `${MOVING}${i}`));
    tables.forEach(([, now], i) => this.renameTo(`${MOVING}${i}`, logName(now)));
  }

  /** As `rename`, for the columns of one log. */
  renameColumns(table: string, columns: readonly ColumnRename[]): void {
    columns.forEach(([then], i) => this.renameColumn(table, valueColumn(then), `${MOVING}${i}`));
    columns.forEach(([, now], i) => this.renameColumn(table, `${MOVING}${i}`, valueColumn(now)));
  }

  /**
   * Brings a log's columns to those of a table; entries get a new column's value from the row itself.
   * @param keyThen the key as the entries have it
   * @param of the table whose log it is
   * @returns the columns that are new
   */
  fitColumns(table: Table, keyThen: readonly string[], of: string = table.name): string[] {
    const log = id(logName(of));
    const have = this.columns(of);
    const present = new Set(have.map(fold));
    const wanted = new Set(table.columns.map((column) => fold(valueColumn(column))));
    const places = table.columns.map((_, place) => place).filter((place) =>
      !present.has(fold(valueColumn(table.columns[place]!)))
    );
    for (const place of places) {
      this.db.exec(`ALTER TABLE ${log} ADD COLUMN ${id(valueColumn(table.columns[place]!))}`);
    }
    const columns = new Set(table.columns.map(fold));
    const known = keyThen.length > 0 && keyThen.every((column) => columns.has(fold(column)));
    const key = known ? keyThen : table.key;
    const same = key.map((column) => `${keyTerm(table, column)} IS ${log}.${id(valueColumn(column))}`).join(" AND ");
    const rows = `FROM main.${id(table.name)} AS t WHERE ${same} LIMIT 1`;
    const values = places.map((place) => {
      const column = table.columns[place]!;
      const ofRow = `(SELECT t.${id(column)} ${rows})`;
      return `${id(valueColumn(column))} = CASE WHEN EXISTS (SELECT 1 ${rows}) THEN ${ofRow} ELSE (${
        table.defaults[place]
      }) END`;
    });
    if (values.length > 0) this.db.exec(`UPDATE ${log} SET ${values.join(", ")} WHERE op <> ${OP_DELETE}`);
    for (const column of have) {
      if (column.startsWith("val_") && !wanted.has(fold(column))) this.dropColumn(of, column);
    }
    return places.map((place) => table.columns[place]!);
  }

  /** Entries that can't tell their row, since their table has another key now. @returns how many there were */
  dropKeyless(table: Table, added: readonly string[]): number {
    const missing = table.key.filter((column) => added.includes(column));
    if (missing.length === 0) return 0;
    const isNull = missing.map((column) => `${id(valueColumn(column))} IS NULL`).join(" OR ");
    return this.db.prepare(`DELETE FROM ${id(logName(table.name))} WHERE ${isNull}`).run();
  }

  /** What was logged under another name, after `since`, goes on in this table's log; the other log is dropped. */
  takeOver(table: Table, from: string, since: number): void {
    this.fitColumns(table, table.key, from);
    const names = table.columns.map((column) => id(valueColumn(column))).join(", ");
    this.db.exec(
      `INSERT INTO ${id(logName(table.name))}(op, stamp, ${names}) SELECT op, stamp, ${names} FROM ${
        id(logName(from))
      } WHERE seq > ${since} ORDER BY seq`,
    );
    this.drop(from);
  }

  /**
   * A trigger that was newer than ours wrote to rows before we saw them, so entries after `since` may hold old images, in
   * the wrong order. What they are about is logged again from the rows themselves; not where the last entry says what its
   * row is: it may be published already, and would be newer than it should be if it were so again. Where UNIQUE values
   * displace rows, an old image in front of it may have displaced one at a replica: there all of them count, and the rows
   * that hold such a value now.
   */
  refresh(table: Table, since: number): void {
    const log = id(logName(table.name));
    const keys = table.key.map((column) => id(valueColumn(column)));
    const images = table.columns.map((column) => `${id(valueColumn(column))} AS ${id(column)}`).join(", ");
    const entries = table.uniques.length > 0 ? `seq > ${since}` : this.untrueSql(table, since);
    this.db.exec(`CREATE TEMP TABLE marmot_refresh AS SELECT ${images} FROM ${log} AS e WHERE ${entries}`);
    const same = table.key.map((key) => `${keyTerm(table, key)} IS r.${id(key)}`).join(" AND ");
    const keyNames = table.key.map((key) => `r.${id(key)}`).join(", ");
    this.db.exec(
      `INSERT INTO ${log}(op, ${
        keys.join(", ")
      }) SELECT DISTINCT ${OP_DELETE}, ${keyNames} FROM temp.marmot_refresh AS r ` +
        `WHERE NOT EXISTS (SELECT 1 FROM main.${id(table.name)} AS t WHERE ${same})`,
    );
    const row = (names: readonly string[]) => names.length === 1 ? names[0] : `(${names.join(", ")})`;
    const keyRow = row(table.key.map((key) => keyTerm(table, key)));
    // an entry has no generated columns, and what an expression calls may be known to the application only
    const stored = new Set(table.columns.map(id));
    const plain = table.uniques.filter(({ terms }) => terms.every(({ sql }) => stored.has(sql)));
    const touched = plain.map(({ terms }) => {
      const sql = row(terms.map((term) => `${term.sql}${knownCollate(term.collation)}`));
      return `${sql} IN (SELECT ${terms.map((term) => term.sql).join(", ")} FROM temp.marmot_refresh)`;
    });
    const direct = table.nullableKey
      ? `EXISTS (SELECT 1 FROM temp.marmot_refresh AS r WHERE ${same})`
      : `${keyRow} IN (SELECT ${table.key.map((key) => id(key)).join(", ")} FROM temp.marmot_refresh)`;
    this.logRows(table, `AS t WHERE ${[direct, ...touched].join(" OR ")}`);
    this.db.exec("DROP TABLE temp.marmot_refresh");
  }

  /** The last entry of each key, where it does not say what the row is. */
  private untrueSql(table: Table, since: number): string {
    const log = id(logName(table.name));
    const keys = table.key.map((column) => id(valueColumn(column))).join(", ");
    const last = `SELECT max(seq) FROM ${log} WHERE seq > ${since} GROUP BY ${keys}`;
    const same = table.key.map((column) => `${keyTerm(table, column)} IS e.${id(valueColumn(column))}`).join(" AND ");
    const row = `SELECT 1 FROM main.${id(table.name)} AS t WHERE ${same}`;
    // a column's collation, and its affinity, may call different values the same
    const exact = (value: string) => [`${value} COLLATE BINARY`, `typeof(${value})`];
    const now = table.columns.flatMap((column) => exact(`t.${id(column)}`)).join(", ");
    const said = table.columns.flatMap((column) => exact(`e.${id(valueColumn(column))}`)).join(", ");
    return `seq IN (${last}) AND ` +
      `CASE op WHEN ${OP_DELETE} THEN EXISTS (${row}) ELSE NOT EXISTS (${row} AND (${now}) IS (${said})) END`;
  }

  /** Logs rows of the table as they are. @returns how many */
  logRows(table: Table, which = ""): number {
    const names = table.columns.map((column) => id(valueColumn(column))).join(", ");
    const values = table.columns.map(id).join(", ");
    const into = `INSERT INTO ${id(logName(table.name))}(op, ${names})`;
    return this.db.prepare(`${into} SELECT ${OP_UPDATE}, ${values} FROM main.${id(table.name)} ${which}`).run();
  }

  private columns(table: string): string[] {
    return this.columnsOf(logName(table));
  }

  private columnsOf(log: string): string[] {
    return this.db.prepare("SELECT name FROM pragma_table_info(?)").all(log).map(([name]) => String(name));
  }

  private renameTo(then: string, now: string): void {
    this.alter(`ALTER TABLE ${id(then)} RENAME TO ${id(now)}`, then, now, (column) => column);
  }

  private renameColumn(table: string, then: string, now: string): void {
    const log = logName(table);
    if (this.columns(table).some((column) => fold(column) === fold(now))) this.dropColumn(table, now);
    const named = (column: string) => fold(column) === fold(then) ? now : column;
    this.alter(`ALTER TABLE ${id(log)} RENAME COLUMN ${id(then)} TO ${id(now)}`, log, log, named);
  }

  private dropColumn(table: string, gone: string): void {
    const log = logName(table);
    const named = (column: string) => fold(column) === fold(gone) ? undefined : column;
    this.alter(`ALTER TABLE ${id(log)} DROP COLUMN ${id(gone)}`, log, log, named);
  }

  /**
   * ALTER TABLE looks at all of the schema, and fails for a view that is broken or a trigger with a function it does not
   * know: the log is copied then.
   */
  private alter(sql: string, then: string, now: string, named: (column: string) => string | undefined): void {
    try {
      this.db.exec(sql);
      return;
    } catch (error) {
      // after some errors (full disk, I/O) SQLite has taken back the transaction: nothing may be written outside of it
      if (sqliteProblem(error) !== "other") throw error;
      this.db.exec(`CREATE TEMP TABLE ${COPY} AS SELECT * FROM main.${id(then)}`);
    }
    const kept = this.columnsOf(then).slice(3).flatMap((column) => {
      const name = named(column);
      return name === undefined ? [] : [[id(column), id(name)] as const];
    });
    const names = ["seq", "op", "stamp", ...kept.map(([, name]) => name)].join(", ");
    const values = ["seq", "op", "stamp", ...kept.map(([column]) => column)].join(", ");
    this.db.exec(`DROP TABLE main.${id(then)}`);
    const columns = kept.map(([, name]) => `, ${name}`).join("");
    this.db.exec(`CREATE TABLE main.${id(now)}(seq INTEGER PRIMARY KEY, op, stamp DEFAULT (random())${columns})`);
    this.db.exec(`INSERT INTO main.${id(now)}(${names}) SELECT ${values} FROM temp.${COPY}`);
    this.db.exec(`DROP TABLE temp.${COPY}`);
  }
}
