/**
 * Puts change logs and triggers right, in one transaction: at the start, and whenever the schema changed. Run again
 * without a change of the schema it writes nothing.
 */
import { OP_DELETE, OP_UPDATE } from "../change.ts";
import type { Database } from "../database.ts";
import { type TablePatterns, whyExcluded } from "../table_filter.ts";
import { transaction } from "./connection.ts";
import { Names } from "./names.ts";
import { createOwnTables, FORMAT, hasOwnTables, readFact, writeFact } from "./own_tables.ts";
import { fold, id } from "./quote.ts";
import { readSchema, type Schema, schemaVersion, type Table, type Trigger } from "./schema.ts";
import {
  columnsOfTrigger,
  logName,
  logSql,
  tableOfLog,
  tableOfTrigger,
  triggerTexts,
  valueColumn,
} from "./triggers.ts";

export interface InstallRequest {
  readonly patterns: TablePatterns;
  readonly rowidTables: boolean;
  /** at a first start: publish the rows that are there */
  readonly backfill: boolean;
  /** made once and kept: 32 hex digits */
  readonly newNodeId: () => string;
  /** highest seq of a table's log that a scan under the former schema saw; 0 at the start */
  readonly scanned: (table: string) => number;
}

/** What the log should say, once. */
export interface Note {
  readonly level: "info" | "warn";
  readonly message: string;
  readonly table?: string;
  readonly reason?: string;
}

export interface Installed {
  readonly nodeId: string;
  readonly schema: Schema;
  /** PRAGMA schema_version after it */
  readonly version: number;
  /** by folded name */
  readonly captured: ReadonlyMap<string, Table>;
  readonly excluded: readonly { name: string; reason: string }[];
  readonly names: Names;
  /** folded names of tables that have a change log, dropped ones with entries left included */
  readonly logs: ReadonlySet<string>;
  readonly notes: readonly Note[];
}

/** Rejects, by throwing what SQLite throws, when the lock can't be had: nothing has changed then. */
export function install(db: Database, request: InstallRequest): Installed {
  return transaction(db, "IMMEDIATE", () => new Installation(db, request).run());
}

/**
 * Has a table that was captured no triggers, because it was rebuilt or they were dropped? What is written to it meanwhile
 * is lost to the other nodes, so it can't wait.
 */
export function missesCapture(db: Database, { names }: Installed): boolean {
  const objects = db.prepare("SELECT type, name, tbl_name FROM main.sqlite_schema").all();
  const captured = new Set<string>();
  for (const [type, name, table] of objects) {
    if (type === "trigger" && tableOfTrigger(String(name)) !== undefined) captured.add(fold(String(table)));
  }
  return objects.some(([type, name]) => {
    const state = type === "table" ? names.tables.get(fold(String(name)))?.state : undefined;
    return (state === "captured" || state === "dropped") && !captured.has(fold(String(name)));
  });
}

class Installation {
  private readonly notes: Note[] = [];
  private schema: Schema;
  private names!: Names;

  constructor(private readonly db: Database, private readonly request: InstallRequest) {
    this.schema = readSchema(db, request.rowidTables);
  }

  run(): Installed {
    const first = !hasOwnTables(this.db);
    createOwnTables(this.db, this.schema.own);
    const nodeId = this.identity();
    this.names = Names.read(this.db);
    this.followRenames();
    const excluded = this.schema.skipped.filter(({ name }) => !this.isShadow(name)).map((skipped) => ({ ...skipped }));
    const captured = new Map<string, Table>();
    for (const [folded, table] of this.schema.tables) {
      const reason = whyExcluded(table.name, this.request.patterns);
      if (reason === undefined) {
        this.capture(table, first);
        captured.set(folded, table);
      } else {
        excluded.push({ name: table.name, reason });
        this.release(table.name);
      }
    }
    this.forgetDropped();
    for (const { name, reason } of excluded) this.note("info", "table is not replicated", name, reason);
    this.warnAssignedKeys(captured);
    const { schema, names, notes } = this;
    const logs = new Set(this.ownTables().map((name) => tableOfLog(fold(name))).filter((table) => table !== undefined));
    return { nodeId, schema, version: schemaVersion(this.db), captured, excluded, names, logs, notes };
  }

  private ownTables(): string[] {
    const sql =
      "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name LIKE '\\_\\_marmot\\_\\_%' ESCAPE '\\'";
    return this.db.prepare(sql).all().map(([name]) => String(name));
  }

  private isShadow(name: string): boolean {
    return this.schema.skipped.some((skipped) => skipped.name === name && skipped.reason.startsWith("it belongs"));
  }

  private identity(): string {
    const format = readFact(this.db, "format");
    if (format !== undefined && Number(format) > FORMAT) {
      throw new Error(
        `Cannot use this database: its Marmot tables have format ${format}, this Marmot knows ${FORMAT}. Use a newer Marmot.`,
      );
    }
    if (format === undefined) writeFact(this.db, "format", String(FORMAT));
    const known = readFact(this.db, "id");
    if (known !== undefined) return known;
    const made = this.request.newNodeId();
    writeFact(this.db, "id", made);
    return made;
  }

  /** A table renamed under us keeps our triggers; SQLite has rewritten their table. */
  private followRenames(): void {
    const moved = this.schema.triggers.filter((trigger) => {
      const made = tableOfTrigger(trigger.name);
      return made?.suffix === "insert" && fold(made.table) !== fold(trigger.table);
    });
    for (const trigger of moved) this.followRename(tableOfTrigger(trigger.name)!.table, trigger);
    if (moved.length > 0) this.schema = readSchema(this.db, this.request.rowidTables);
  }

  private followRename(then: string, trigger: Trigger): void {
    const now = trigger.table;
    const columns = columnsOfTrigger(trigger.sql);
    for (const other of this.schema.triggers) {
      const made = tableOfTrigger(other.name);
      if (made !== undefined && fold(made.table) === fold(then)) this.db.exec(`DROP TRIGGER ${id(other.name)}`);
    }
    const hadLog = this.schema.own.has(fold(logName(now)));
    if (hadLog || this.names.tables.get(fold(now))?.state === "captured") {
      // the new copy of a rebuilt table took the old one's name
      if (this.schema.own.has(fold(logName(then)))) this.db.exec(`DROP TABLE ${id(logName(then))}`);
      this.names.rememberState(then, "dropped");
      return;
    }
    this.db.exec(`ALTER TABLE ${id(logName(then))} RENAME TO ${id(logName(now))}`);
    this.names.renameTable(then, now);
    this.renameColumns(now, columns);
    this.names.rememberState(now, "captured");
    this.note("info", "table was renamed", now, `formerly ${then}`);
  }

  private renameColumns(table: string, columns: readonly [string, string][]): void {
    for (const [then, now] of columns) {
      if (fold(then) === fold(now)) continue;
      this.db.exec(
        `ALTER TABLE ${id(logName(table))} RENAME COLUMN ${id(valueColumn(then))} TO ${id(valueColumn(now))}`,
      );
      this.names.renameColumn(table, then, now);
      this.note("info", "column was renamed", table, `${then} is now ${now}`);
    }
  }

  private capture(table: Table, first: boolean): void {
    const ours = this.ourTriggers(table);
    const insertTrigger = ours.find((trigger) => tableOfTrigger(trigger.name)!.suffix === "insert");
    const hasLog = this.schema.own.has(fold(logName(table.name)));
    const known = this.names.tables.get(fold(table.name));
    if (hasLog && insertTrigger !== undefined) this.renameColumns(table.name, columnsOfTrigger(insertTrigger.sql));
    const expected = triggerTexts(table);
    const right = ours.length === expected.length &&
      ours.every((t, i) => t.name === expected[i]!.name && t.sql === expected[i]!.sql);
    const overtaken = ours.length > 0 && this.isOvertaken(table, ours);
    if (!right || overtaken || !hasLog) {
      for (const trigger of ours) this.db.exec(`DROP TRIGGER ${id(trigger.name)}`);
      if (!hasLog) this.db.exec(logSql(table));
      else this.fitColumns(table);
      for (const { sql } of expected) this.db.exec(sql);
    }
    if (overtaken) this.refreshEntries(table);
    if (!hasLog && (first ? this.request.backfill : known === undefined)) this.logAllRows(table, first);
    this.noteGap(table.name, hasLog ? ours.length === 0 : known !== undefined, known?.state === "excluded");
    this.names.rememberCaptured(table);
  }

  private noteGap(table: string, gap: boolean, wasExcluded: boolean): void {
    if (!gap) return;
    const reason = wasExcluded
      ? "it was excluded before: the rows it has are not published"
      : "it was rebuilt, or its triggers were dropped: changes made in between, and the rows it has, are not published";
    this.note("warn", "table is captured again", table, reason);
  }

  /** In the order of sqlite_schema. */
  private ourTriggers(table: Table): Trigger[] {
    return this.schema.triggers.filter((trigger) => {
      const made = tableOfTrigger(trigger.name);
      return made !== undefined && fold(trigger.table) === fold(table.name);
    });
  }

  /** SQLite fires the newest trigger first, and ours must see the row before another trigger's write to it is captured. */
  private isOvertaken(table: Table, ours: readonly Trigger[]): boolean {
    const oldest = Math.min(...ours.map((trigger) => trigger.order));
    return this.schema.triggers.some((trigger) =>
      fold(trigger.table) === fold(table.name) && trigger.order > oldest && tableOfTrigger(trigger.name) === undefined
    );
  }

  /** Brings the log's columns to the table's; entries get a new column's value from the row itself. */
  private fitColumns(table: Table): void {
    const log = id(logName(table.name));
    const have = new Set(
      this.db.prepare(`SELECT name FROM pragma_table_info(?)`).all(logName(table.name)).map(([name]) =>
        fold(String(name))
      ),
    );
    const wanted = new Set(table.columns.map((column) => fold(valueColumn(column))));
    table.columns.forEach((column, place) => {
      if (have.has(fold(valueColumn(column)))) return;
      this.db.exec(`ALTER TABLE ${log} ADD COLUMN ${id(valueColumn(column))}`);
      const same = table.key.map((key) => `${id(key)} IS ${log}.${id(valueColumn(key))}`).join(" AND ");
      const rows = `FROM ${id(table.name)} WHERE ${same} LIMIT 1`;
      const value = `CASE WHEN EXISTS (SELECT 1 ${rows}) THEN (SELECT ${id(column)} ${rows}) ELSE (${
        table.defaults[place]
      }) END`;
      this.db.exec(`UPDATE ${log} SET ${id(valueColumn(column))} = ${value} WHERE op <> ${OP_DELETE}`);
      this.note("info", "column is captured", table.name, column);
    });
    for (const column of have) {
      if (column.startsWith("val_") && !wanted.has(column)) {
        this.db.exec(`ALTER TABLE ${log} DROP COLUMN ${id(column)}`);
      }
    }
  }

  /**
   * A trigger that was newer than ours wrote to rows before we saw them, so entries since then may hold old images, in
   * the wrong order. What they are about is logged again from the rows themselves. Where UNIQUE values displace rows, an
   * old image may have displaced one at a replica: the rows that hold such a value now are logged too.
   */
  private refreshEntries(table: Table): void {
    const log = id(logName(table.name));
    const since = this.request.scanned(table.name);
    const keys = table.key.map((column) => id(valueColumn(column)));
    const images = table.columns.map((column) => `${id(valueColumn(column))} AS ${id(column)}`).join(", ");
    this.db.exec(`CREATE TEMP TABLE marmot_refresh AS SELECT ${images} FROM ${log} WHERE seq > ${since}`);
    if (table.uniques.length === 0) this.db.exec(`DELETE FROM ${log} WHERE seq > ${since}`);
    const same = table.key.map((key) => `r.${id(key)} IS t.${id(key)}`).join(" AND ");
    const keyNames = table.key.map((key) => `r.${id(key)}`).join(", ");
    this.db.exec(
      `INSERT INTO ${log}(op, ${
        keys.join(", ")
      }) SELECT DISTINCT ${OP_DELETE}, ${keyNames} FROM temp.marmot_refresh AS r ` +
        `WHERE NOT EXISTS (SELECT 1 FROM main.${id(table.name)} AS t WHERE ${same})`,
    );
    const names = table.columns.map((column) => id(valueColumn(column))).join(", ");
    const values = table.columns.map((column) => id(column)).join(", ");
    const row = (names: readonly string[]) => names.length === 1 ? names[0] : `(${names.join(", ")})`;
    const keyRow = row(table.key.map((key) => id(key)));
    const exact = table.key.map((key) => `r.${id(key)} IS t.${id(key)}`).join(" AND ");
    const touched = table.uniques.map(({ terms }) => {
      const sql = row(terms.map((term) => term.sql));
      return `${sql} IN (SELECT ${terms.map((term) => term.sql).join(", ")} FROM temp.marmot_refresh)`;
    });
    const direct = table.nullableKey
      ? `EXISTS (SELECT 1 FROM temp.marmot_refresh AS r WHERE ${exact})`
      : `${keyRow} IN (SELECT ${table.key.map((key) => id(key)).join(", ")} FROM temp.marmot_refresh)`;
    this.db.exec(
      `INSERT INTO ${log}(op, ${names}) SELECT ${OP_UPDATE}, ${values} FROM main.${id(table.name)} AS t WHERE ${
        [direct, ...touched].join(" OR ")
      }`,
    );
    this.db.exec("DROP TABLE temp.marmot_refresh");
    this.note("info", "capture triggers were put last again", table.name, "a trigger was added after them");
  }

  private logAllRows(table: Table, first: boolean): void {
    const names = table.columns.map((column) => id(valueColumn(column))).join(", ");
    const values = table.columns.map(id).join(", ");
    const into = `INSERT INTO ${id(logName(table.name))}(op, ${names})`;
    const rows = this.db.prepare(`${into} SELECT ${OP_UPDATE}, ${values} FROM ${id(table.name)}`).run();
    this.note(
      "info",
      first ? "existing rows will be published" : "table is new and captured",
      table.name,
      `${rows} rows`,
    );
  }

  /** A table that is excluded now: its triggers go; its log stays until it is empty. */
  private release(name: string): void {
    for (const trigger of this.schema.triggers) {
      const made = tableOfTrigger(trigger.name);
      if (made !== undefined && fold(trigger.table) === fold(name)) this.db.exec(`DROP TRIGGER ${id(trigger.name)}`);
    }
    if (this.schema.own.has(fold(logName(name)))) this.db.exec(`DROP TABLE ${id(logName(name))}`);
    this.names.rememberState(name, "excluded");
  }

  /** The log of a dropped table goes once its entries were read back. */
  private forgetDropped(): void {
    for (const known of [...this.names.tables.values()]) {
      if (this.schema.tables.has(fold(known.name))) continue;
      if (known.state === "captured") {
        this.names.rememberState(known.name, "dropped");
        this.note("info", "table was dropped", known.name);
      }
    }
    for (const folded of this.schema.own.keys()) {
      const table = tableOfLog(folded);
      if (table === undefined || this.schema.tables.has(table)) continue;
      const known = this.names.tables.get(table);
      const empty = this.db.prepare(`SELECT 1 FROM ${id(folded)} LIMIT 1`).get() === undefined;
      if (empty || known?.shape == null) this.db.exec(`DROP TABLE ${id(folded)}`);
    }
  }

  private warnAssignedKeys(captured: ReadonlyMap<string, Table>): void {
    const names = [...captured.values()].filter((table) => table.assignedKey).map((table) => table.name);
    if (names.length === 0) return;
    this.notes.push({
      level: "warn",
      message:
        "the database assigns the integer keys of these tables: the same id made on two nodes is one row, the last published wins",
      table: names.join(", "),
    });
  }

  private note(level: Note["level"], message: string, table: string, reason?: string): void {
    this.notes.push({ level, message, table, ...(reason === undefined ? {} : { reason }) });
  }
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
