/**
 * Puts change logs and triggers right, in one transaction: at the start, and whenever the schema changed. Run again
 * without a change of the schema it writes nothing.
 */
import type { Database } from "../database.ts";
import { EXIT, MarmotError } from "../errors.ts";
import { type TablePatterns, whyExcluded } from "../table_filter.ts";
import { refusal, transaction } from "./connection.ts";
import { type ColumnRename, LogUpkeep } from "./log_upkeep.ts";
import { type KnownTable, Names } from "./names.ts";
import { createOwnTables, FORMAT, hasOwnTables, readFact, writeFact } from "./own_tables.ts";
import { renameParked } from "./parked.ts";
import { fold, id } from "./quote.ts";
import {
  PREFIX,
  readSchema,
  type Schema,
  schemaVersion,
  type SkippedTable,
  type Table,
  type Trigger,
} from "./schema.ts";
import {
  columnsOfTrigger,
  dropMarksSql,
  logName,
  logSql,
  marksSql,
  tableOfLog,
  tableOfMarks,
  tableOfTrigger,
  triggerTexts,
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
  /** folded names, old and new, of logs that this install gave another name, or took entries from: numbers are used again */
  readonly moved: ReadonlySet<string>;
  /** of these, folded then → now: logs that hold what they held, under another name */
  readonly renames: ReadonlyMap<string, string>;
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
export function missesCapture(db: Database, { names, schema }: Installed): boolean {
  const skipped = new Set(schema.skipped.map(({ name }) => fold(name)));
  const objects = db.prepare("SELECT type, name, tbl_name FROM main.sqlite_schema").all();
  const captured = new Set<string>();
  for (const [type, name, table] of objects) {
    if (type === "trigger" && tableOfTrigger(String(name)) !== undefined) captured.add(fold(String(table)));
  }
  return objects.some(([type, name]) => {
    const state = type === "table" ? names.tables.get(fold(String(name)))?.state : undefined;
    const isExpected = (state === "captured" || state === "dropped") && !skipped.has(fold(String(name)));
    return isExpected && !captured.has(fold(String(name)));
  });
}

/** Triggers of one table: Marmot's, and the application's. */
interface TableTriggers {
  readonly ours: Trigger[];
  readonly theirs: Trigger[];
}

function triggersByTable({ triggers }: Schema): Map<string, TableTriggers> {
  const tables = new Map<string, TableTriggers>();
  for (const trigger of triggers) {
    let table = tables.get(fold(trigger.table));
    if (table === undefined) tables.set(fold(trigger.table), table = { ours: [], theirs: [] });
    (tableOfTrigger(trigger.name) === undefined ? table.theirs : table.ours).push(trigger);
  }
  return tables;
}

/** SQLite fires the newest trigger first, and ours must see the row before another trigger's write to it is captured. */
function isOvertaken(ours: readonly Trigger[], theirs: readonly Trigger[]): boolean {
  const oldest = Math.min(...ours.map(({ order }) => order));
  return theirs.some(({ order }) => order > oldest);
}

class Installation {
  private readonly notes: Note[] = [];
  private schema: Schema;
  /** by folded table, in the order of sqlite_schema */
  private triggers: ReadonlyMap<string, TableTriggers>;
  private names!: Names;
  private readonly logs: LogUpkeep;
  /** folded name of a table → the name its new copy had, while that was logged, and what its log is called now */
  private readonly copies = new Map<string, { readonly then: string; readonly log: string }>();
  private readonly moved = new Set<string>();
  private readonly renames = new Map<string, string>();
  /** folded names that tables took with a rename, and what they had before: their triggers were there until this transaction */
  private readonly renamed = new Map<string, string>();
  /** folded names of those among them, and of copies that took a name, whose triggers were not the last */
  private readonly overtaken = new Set<string>();

  constructor(private readonly db: Database, private readonly request: InstallRequest) {
    this.logs = new LogUpkeep(db);
    this.schema = readSchema(db, request.rowidTables);
    this.triggers = triggersByTable(this.schema);
  }

  run(): Installed {
    const first = !hasOwnTables(this.db);
    createOwnTables(this.db, this.schema.own);
    const nodeId = this.identity();
    this.names = Names.read(this.db);
    this.followRenames();
    const excluded = this.schema.skipped.filter(({ name }) => !this.isShadow(name)).map((skipped) => ({ ...skipped }));
    const captured = new Map<string, Table>();
    const refused: SkippedTable[] = [];
    for (const [folded, table] of this.schema.tables) {
      const reason = whyExcluded(table.name, this.request.patterns);
      if (reason !== undefined) {
        excluded.push({ name: table.name, reason });
        this.release(table.name);
        continue;
      }
      const problem = this.tryCapture(table, first);
      if (problem === undefined) captured.set(folded, table);
      else refused.push({ name: table.name, reason: problem });
    }
    excluded.push(...refused);
    this.skip(refused);
    for (const { name } of this.schema.skipped) this.dropTriggers(name);
    this.forgetDropped();
    this.dropMarks(captured);
    for (const { name, reason } of excluded) this.note("info", "table is not replicated", name, reason);
    this.warnAssignedKeys(captured);
    const { schema, names, notes } = this;
    const logs = new Set(this.ownTables().map((name) => tableOfLog(fold(name))).filter((table) => table !== undefined));
    const { moved, renames } = this;
    return { nodeId, schema, version: schemaVersion(this.db), captured, excluded, names, logs, moved, renames, notes };
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
      const formats = `its Marmot tables have format ${format}, this Marmot knows ${FORMAT}`;
      throw new MarmotError(`Cannot use this database: ${formats}. Use a newer Marmot.`, EXIT.refused);
    }
    if (Number(format) !== FORMAT) writeFact(this.db, "format", String(FORMAT));
    const known = readFact(this.db, "id");
    if (known !== undefined) return known;
    const made = this.request.newNodeId();
    writeFact(this.db, "id", made);
    return made;
  }

  /** A table renamed under us keeps our triggers; SQLite has rewritten their table. */
  private followRenames(): void {
    const found = this.schema.triggers.flatMap((trigger) => {
      const made = tableOfTrigger(trigger.name);
      if (made?.suffix !== "insert" || fold(made.table) === fold(trigger.table)) return [];
      return [{ then: made.table, now: trigger.table, columns: columnsOfTrigger(trigger.sql) }];
    });
    if (found.length === 0) return;
    const triggers = new Set(found.map(({ then }) => fold(then)));
    // one that is not replicated under its new name leaves its log behind, as if it were dropped
    const moved = found.filter(({ now }) => whyExcluded(now, this.request.patterns) === undefined);
    for (const { now } of moved) {
      const { ours, theirs } = this.triggersOf(now);
      if (isOvertaken(ours, theirs)) this.overtaken.add(fold(now));
    }
    const leaving = new Set(moved.map(({ then }) => fold(then)));
    for (const { name } of this.schema.triggers) {
      const made = tableOfTrigger(name);
      if (made !== undefined && triggers.has(fold(made.table))) this.db.exec(`DROP TRIGGER ${id(name)}`);
    }
    const renamed = moved.filter(({ then, now }) => {
      const taken = this.logs.has(now) && !leaving.has(fold(now));
      if (taken) this.followSwap(then, now);
      return !taken && this.logs.has(then);
    });
    this.logs.rename(renamed.map(({ then, now }) => [then, now]));
    renameParked(this.db, renamed.map(({ then, now }) => [then, now]));
    const homes = renamed.map(({ then, now }) => this.names.homeAfterRename(then, now));
    const shapes = renamed.map(({ then }) => this.names.tables.get(fold(then))?.shape ?? null);
    const had = renamed.map(({ then }) => new Map(this.names.affinitiesOf(then)));
    for (const [place, { then, now }] of renamed.entries()) {
      this.names.renameTable(then, now, homes[place]!, had[place]!);
      this.moved.add(fold(then)).add(fold(now));
      this.renames.set(fold(then), fold(now));
      this.renamed.set(fold(now), then);
    }
    for (const [place, { then, now, columns }] of renamed.entries()) {
      this.renameColumns(now, columns);
      this.names.rememberLog(now, shapes[place]!, columns);
      this.note("info", "table was renamed", now, `formerly ${then}`);
    }
    this.schema = readSchema(this.db, this.request.rowidTables);
    this.triggers = triggersByTable(this.schema);
  }

  /** The new copy of a rebuilt table took the old one's name: what was written to it since then is in the copy's log. */
  private followSwap(then: string, now: string): void {
    if (this.logs.has(then)) {
      // another table may have taken the copy's name
      const log = `${PREFIX}copy_${this.copies.size}`;
      this.logs.rename([[then, log]]);
      this.copies.set(fold(now), { then, log });
    }
    this.moved.add(fold(then));
    this.names.rememberState(then, "dropped");
  }

  private renameColumns(table: string, columns: readonly ColumnRename[]): void {
    const renamed = columns.filter(([then, now]) => fold(then) !== fold(now));
    if (renamed.length === 0) return;
    this.logs.renameColumns(table, renamed);
    this.names.renameColumns(table, renamed);
    for (const [then, now] of renamed) this.note("info", "column was renamed", table, `${then} is now ${now}`);
  }

  /** @returns why SQLite refuses a change log or triggers for the table, if so: it is as it was then */
  private tryCapture(table: Table, first: boolean): string | undefined {
    const said = this.notes.length;
    const refused = refusal(this.db, () => this.capture(table, first));
    if (refused === undefined) return undefined;
    this.notes.length = said;
    // it remembered what is in the file no more
    this.names = Names.read(this.db);
    return `SQLite refuses to capture it: ${refused.message}`;
  }

  /** Tables that can't be captured are as those that are not captured for what they are. */
  private skip(refused: readonly SkippedTable[]): void {
    if (refused.length === 0) return;
    const names = new Set(refused.map(({ name }) => fold(name)));
    const tables = new Map([...this.schema.tables].filter(([folded]) => !names.has(folded)));
    this.schema = { ...this.schema, tables, skipped: [...this.schema.skipped, ...refused] };
  }

  private capture(table: Table, first: boolean): void {
    const { ours, theirs } = this.triggersOf(table.name);
    const insertTrigger = ours.find((trigger) => tableOfTrigger(trigger.name)!.suffix === "insert");
    const hasLog = this.schema.own.has(fold(logName(table.name)));
    const known = this.names.tables.get(fold(table.name));
    if (hasLog && insertTrigger !== undefined) this.renameColumns(table.name, columnsOfTrigger(insertTrigger.sql));
    const expected = triggerTexts(table);
    const right = ours.length === expected.length &&
      ours.every((t, i) => t.name === expected[i]!.name && t.sql === expected[i]!.sql);
    const overtaken = this.overtaken.has(fold(table.name)) || (ours.length > 0 && isOvertaken(ours, theirs));
    let added: readonly string[] = [];
    if (!right || overtaken || !hasLog) {
      this.dropTriggers(table.name);
      if (!hasLog) this.db.exec(logSql(table));
      else added = this.fitColumns(table, known);
      for (const sql of marksSql(table)) this.db.exec(sql);
      for (const { sql } of expected) this.db.exec(sql);
    }
    const copy = this.copies.get(fold(table.name));
    if (copy !== undefined) this.logs.takeOver(table, copy.log, this.request.scanned(copy.then));
    const then = this.renamed.get(fold(table.name));
    if (overtaken) {
      this.logs.refresh(table, this.request.scanned(then ?? table.name));
      this.note("info", "capture triggers were put last again", table.name, "a trigger was added after them");
    }
    if (!hasLog && (first ? this.request.backfill : known === undefined)) this.logAllRows(table, first);
    const untriggered = ours.length === 0 && then === undefined;
    this.noteGap(table.name, hasLog ? untriggered : known !== undefined, known?.state === "excluded");
    this.names.rememberCaptured(table);
    if (added.length > 0 || this.names.filledOf(table.name).size > 0) {
      this.names.rememberFilled(table.name, added, this.logs.highest(table.name));
    }
  }

  /** @returns the columns that are new */
  private fitColumns(table: Table, known: KnownTable | undefined): readonly string[] {
    const shape = known?.shape;
    const added = this.logs.fitColumns(table, shape?.key.map((place) => shape.columns[place]!) ?? []);
    for (const column of added) this.note("info", "column is captured", table.name, column);
    const keyless = this.logs.dropKeyless(table, added);
    if (keyless > 0) {
      const name = fold(table.name);
      this.moved.add(name);
      for (const [then, now] of this.renames) if (now === name) this.renames.delete(then);
      const reason = "its primary key is another now, and these changes have only the old one";
      this.note("warn", "changes can't be published", table.name, `${keyless} changes: ${reason}`);
    }
    return added;
  }

  private logAllRows(table: Table, first: boolean): void {
    const rows = this.logs.logRows(table);
    const message = first ? "existing rows will be published" : "table is new and captured";
    this.note("info", message, table.name, `${rows} rows`);
  }

  private noteGap(table: string, gap: boolean, wasExcluded: boolean): void {
    if (!gap) return;
    const reason = wasExcluded
      ? "it was excluded before: the rows it has are not published, and what other nodes wrote meanwhile is not here"
      : "it was rebuilt, or its triggers were dropped: changes made in between, and the rows it has, are not published";
    this.note("warn", "table is captured again", table, reason);
  }

  private dropTriggers(table: string): void {
    for (const trigger of this.triggersOf(table).ours) this.db.exec(`DROP TRIGGER ${id(trigger.name)}`);
  }

  private triggersOf(table: string): TableTriggers {
    return this.triggers.get(fold(table)) ?? { ours: [], theirs: [] };
  }

  /** A table that is excluded now: its triggers go; its log stays until it is empty. */
  private release(name: string): void {
    this.dropTriggers(name);
    if (this.logs.has(name) && this.logs.isEmpty(name)) this.logs.drop(name);
    this.names.rememberState(name, "excluded");
  }

  /** The log of a dropped table goes once its entries were read back. */
  private forgetDropped(): void {
    const skipped = new Set(this.schema.skipped.map(({ name }) => fold(name)));
    for (const known of [...this.names.tables.values()]) {
      if (this.schema.tables.has(fold(known.name)) || skipped.has(fold(known.name))) continue;
      if (known.state === "captured") {
        this.names.rememberState(known.name, "dropped");
        this.note("info", "table was dropped", known.name);
      }
    }
    for (const folded of this.schema.own.keys()) {
      const table = tableOfLog(folded);
      if (table === undefined || this.schema.tables.has(table)) continue;
      const known = this.names.tables.get(table);
      if (this.logs.has(table) && (this.logs.isEmpty(table) || known?.shape == null)) this.logs.drop(table);
    }
  }

  private dropMarks(captured: ReadonlyMap<string, Table>): void {
    for (const folded of this.schema.own.keys()) {
      const table = tableOfMarks(folded);
      if (table !== undefined && !captured.get(table)?.cascadesToItself) this.db.exec(dropMarksSql(table));
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
