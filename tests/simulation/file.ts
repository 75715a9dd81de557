/** A node's database file: the application's connection, a reader beside it, and what the law says of the file. */
import { copyFileSync, renameSync, rmSync } from "node:fs";
import { backup, DatabaseSync, type StatementSync } from "node:sqlite";
import type { Entry } from "./entries.ts";
import { Shadow, type StreamLaw } from "./law.ts";
import type { Position, Stored } from "./cluster_broker.ts";
import { literalOf } from "./literals.ts";
import type { TableSpec } from "./tables.ts";

export interface FileOptions {
  readonly path: string;
  readonly wal: boolean;
  readonly tables: readonly TableSpec[];
  readonly shards: number;
  readonly law: StreamLaw;
  readonly pragmas: string;
  /** has it tables besides `tables`, that change? */
  readonly changing: boolean;
  /** of the stamps that the application's triggers give */
  readonly stamp: () => bigint;
}

export interface Pending extends Entry {
  readonly seq: number;
}

/** What is looked at whenever somebody has committed, of one moment. */
export interface Glance {
  /** of the entries that have not come back, oldest first for each table */
  readonly stamps: readonly string[];
  /** by shard */
  readonly cursors: ReadonlyMap<number, Position>;
  /** the numbers in the rows of `pair` */
  readonly pair: readonly string[];
  /** what the audit has, and what the ledger has, sorted */
  readonly audit: unknown;
  readonly ledger: unknown;
}

/** An application's triggers may set off each other without end: SQLite's own limit takes 10 ms to reach. */
const TRIGGER_DEPTH = 40;

interface Stamps {
  next?: (() => bigint) | undefined;
}

/** Deno keeps a function that SQLite calls for ever, and all that it holds: see src/sqlite/connection.ts */
function stampOf(stamps: Stamps): () => bigint {
  return () => stamps.next!();
}

/** What all nodes begin with. */
export function makeFile(path: string, { wal, sql }: { readonly wal: boolean; readonly sql: readonly string[] }): void {
  const db = new DatabaseSync(path);
  db.exec(`PRAGMA journal_mode = ${wal ? "WAL" : "MEMORY"}; PRAGMA synchronous = OFF`);
  db.exec(`BEGIN; ${sql.join("; ")}; COMMIT`);
  db.close();
}

export class NodeFile {
  app!: DatabaseSync;
  reader!: DatabaseSync;
  private stamps: Stamps = {};
  private shadow: Shadow | undefined;
  private readonly statements = new Map<string, StatementSync>();
  /** of the file as it was looked at last */
  private version: unknown;
  private schema: { readonly version: unknown; readonly known: Map<unknown, unknown> } | undefined;

  constructor(readonly options: FileOptions) {
    this.open();
  }

  get path(): string {
    return this.options.path;
  }

  open(): void {
    const { path, wal, pragmas, stamp } = this.options;
    this.app = new DatabaseSync(path, { limits: { triggerDepth: TRIGGER_DEPTH } });
    this.app.exec(`PRAGMA journal_mode = ${wal ? "WAL" : "MEMORY"}; PRAGMA synchronous = OFF; ${pragmas}`);
    this.stamps = { next: stamp };
    this.app.function("random", stampOf(this.stamps));
    this.reader = new DatabaseSync(path);
    this.version = undefined;
    this.schema = undefined;
  }

  /** What `body` reads is of one moment. */
  reading(body: () => void): void {
    this.reader.exec("BEGIN");
    try {
      body();
    } finally {
      this.reader.exec("COMMIT");
    }
  }

  /** Has anybody committed since the last call? */
  hasChanged(): boolean {
    const before = this.version;
    this.version = this.rows("PRAGMA data_version")[0]![0];
    return this.version !== before;
  }

  close(): void {
    this.statements.clear();
    this.reader.close();
    this.closeApp();
    this.forgetShadow();
  }

  private closeApp(): void {
    this.stamps.next = undefined;
    this.app.close();
  }

  private forgetShadow(): void {
    this.shadow?.close();
    this.shadow = undefined;
  }

  rows(sql: string): unknown[][] {
    let statement = this.statements.get(sql);
    if (statement === undefined) {
      this.statements.set(sql, statement = this.reader.prepare(sql));
      statement.setReadBigInts(true);
      statement.setReturnArrays(true);
    }
    return statement.all() as unknown as unknown[][];
  }

  /** What `read` finds in the schema; it is called again once that has changed. */
  ofSchema<T>(read: (file: NodeFile) => T): T {
    const version = this.rows("PRAGMA schema_version")[0]![0];
    if (this.schema?.version !== version) this.schema = { version, known: new Map() };
    const { known } = this.schema!;
    if (!known.has(read)) known.set(read, read(this));
    return known.get(read) as T;
  }

  has(table: string): boolean {
    return this.rows(`SELECT 1 FROM sqlite_schema WHERE name = '${table.replaceAll("'", "''")}'`).length > 0;
  }

  /** Entries that have not come back, oldest first for each table. */
  pending(): Pending[] {
    const { tables } = this.options;
    const byName = new Map(tables.map((table) => [table.name, table]));
    const entries = this.rows(pendingSql(tables)).map(([name, seq, op, stamp, row]) => {
      const { columns, key } = byName.get(String(name))!;
      const values = String(row).split(BETWEEN);
      const places = Number(op) === 3 ? key.map((column) => columns.indexOf(column)) : columns.map((_, place) => place);
      return {
        seq: Number(seq),
        op: Number(op),
        stamp: String(stamp),
        table: String(name),
        columns: places.map((place) => columns[place]!),
        values: places.map((place) => values[place]!),
        transaction: 0,
        order: 0,
      };
    });
    return entries.sort((a, b) => a.table === b.table ? a.seq - b.seq : a.table < b.table ? -1 : 1);
  }

  /** One statement: what takes several costs several times as much, and is asked for after every event. */
  glance(): Glance {
    const [cursors, pair, audit, ledger, ...stamps] = this.rows(glanceSql(this.options.tables))[0]!;
    return {
      stamps: stamps.flatMap((some) => listed(some)),
      cursors: new Map(listed(cursors, "\n").map(positionOf)),
      pair: listed(pair),
      audit,
      ledger,
    };
  }

  /** Those of tables that change, too. */
  allPending(): Pending[] {
    return [...this.pending(), ...this.otherPending()];
  }

  /** Entries of tables that change, without their values. */
  otherPending(): Pending[] {
    const { tables, changing } = this.options;
    if (!changing) return [];
    const known = new Set(tables.map(({ name }) => `__marmot__${name}_change_log`));
    return [...this.ofSchema(changeLogs)].filter(([log]) => !known.has(log)).flatMap(([log, columns]) => {
      const entries = this.rows(`SELECT seq, op, CAST(stamp AS TEXT) FROM "${log}" ORDER BY seq`);
      return entries.map(([seq, op, stamp]) => ({
        seq: Number(seq),
        op: Number(op),
        stamp: String(stamp),
        table: log,
        columns,
        values: [],
        transaction: 0,
        order: 0,
      }));
    });
  }

  /** All rows of tables that change, with columns by name. */
  changingDump(): string {
    const tables = this.reader.prepare(
      "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE '\\_\\_marmot%' ESCAPE '\\' " +
        "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name <> 'audit' ORDER BY name",
    ).all().map(({ name }) => String(name));
    return tables.map((table) => {
      const rows = this.reader.prepare(`SELECT * FROM "${table}"`).all().map((row) =>
        JSON.stringify(Object.entries(row).sort())
      );
      return `${table}\n${rows.sort().map((row) => `  ${row}\n`).join("")}`;
    }).join("");
  }

  /** By shard. */
  cursors(): Map<number, Position> {
    const rows = this.rows("SELECT shard, cursor, digest, time FROM __marmot__cursors");
    return new Map(rows.map(([shard, cursor, digest, time]) => {
      return [Number(shard), { sequence: Number(cursor), digest: String(digest), time: Number(time) }];
    }));
  }

  /**
   * All rows of all tables, sorted, as text.
   * @param nullKeys rows with NULL in their key too: what is pending may be two rows here, and one in the cluster
   */
  dump(nullKeys: boolean): string {
    return this.rows(dumpsOf(this.options.tables, nullKeys).all)[0]!.join("\n");
  }

  /** What the law says at these messages. */
  lawful(at: readonly (Stored | undefined)[], pending: readonly Entry[]): string {
    const { tables, shards, law } = this.options;
    this.shadow ??= new Shadow(tables.flatMap(({ sql }) => sql), tables, shards, law);
    for (const [shard, stored] of at.entries()) this.shadow.advance(shard, stored);
    return this.shadow.under(pending, dumpsOf(tables, pending.length === 0).each).join("\n");
  }

  /** A copy of the file as it is now, while nobody writes. */
  copyTo(path: string): void {
    if (this.options.wal) this.app.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    copyFileSync(this.path, path);
  }

  /** The file is another one from now on. */
  replaceBy(copy: string): void {
    this.close();
    copyFileSync(copy, `${this.path}.new`);
    for (const suffix of ["-wal", "-shm", "-journal"]) rmSync(this.path + suffix, { force: true });
    renameSync(`${this.path}.new`, this.path);
    this.open();
  }

  /** As SQLite's backup does it: in place, page by page, in one transaction. */
  async restoreFrom(copy: string): Promise<void> {
    const source = new DatabaseSync(copy);
    try {
      this.statements.clear();
      this.reader.close();
      this.closeApp();
      await backup(source, this.path);
    } finally {
      source.close();
    }
    this.forgetShadow();
    this.open();
  }
}

const LOGS = "SELECT l.name, c.name FROM sqlite_schema AS l, pragma_table_info(l.name) AS c " +
  "WHERE l.type = 'table' AND l.name LIKE '\\_\\_marmot\\_\\_%\\_change\\_log' ESCAPE '\\' AND c.cid > 2";

/** All change logs, each with the columns of its table. */
function changeLogs(file: NodeFile): Map<string, string[]> {
  const logs = new Map<string, string[]>();
  for (const [log, column] of file.rows(LOGS)) {
    const columns = logs.get(String(log)) ?? [];
    columns.push(String(column).slice("val_".length));
    logs.set(String(log), columns);
  }
  return logs;
}

/** Between the values of a row; no literal holds it */
const BETWEEN = "|";

const pendingSqls = new WeakMap<readonly TableSpec[], string>();

function pendingSql(tables: readonly TableSpec[]): string {
  let sql = pendingSqls.get(tables);
  if (sql === undefined) {
    const selects = tables.map(({ name, columns }) => {
      const values = columns.map((column) => literalOf(`"val_${column}"`)).join(` || '${BETWEEN}' || `);
      return `SELECT '${name}', seq, op, CAST(stamp AS TEXT), ${values} FROM "__marmot__${name}_change_log"`;
    });
    pendingSqls.set(tables, sql = selects.join(" UNION ALL "));
  }
  return sql;
}

const glanceSqls = new WeakMap<readonly TableSpec[], string>();

function glanceSql(tables: readonly TableSpec[]): string {
  let sql = glanceSqls.get(tables);
  if (sql === undefined) {
    const cursor = "shard || ' ' || cursor || ' ' || coalesce(digest, '') || ' ' || coalesce(time, 0)";
    const parts = [
      `SELECT group_concat(${cursor}, char(10)) FROM __marmot__cursors`,
      "SELECT group_concat(n) FROM (SELECT quote(n) AS n FROM pair ORDER BY id)",
      "SELECT group_concat(what) FROM (SELECT what FROM audit ORDER BY what)",
      "SELECT group_concat(id) FROM (SELECT id FROM ledger ORDER BY id)",
      ...tables.map(({ name }) =>
        `SELECT group_concat(stamp) FROM (SELECT stamp FROM "__marmot__${name}_change_log" ORDER BY seq)`
      ),
    ];
    glanceSqls.set(tables, sql = `SELECT ${parts.map((part) => `(${part})`).join(", ")}`);
  }
  return sql;
}

/** What group_concat made; nothing of no rows. */
function listed(text: unknown, separator = ","): string[] {
  return text === null ? [] : String(text).split(separator);
}

function positionOf(row: string): [number, Position] {
  const [shard, sequence, digest, time] = row.split(" ");
  return [Number(shard), { sequence: Number(sequence), digest: digest!, time: Number(time) }];
}

interface Dumps {
  /** by table */
  readonly each: ReadonlyMap<string, string>;
  /** all in one statement: it is asked for after every event */
  readonly all: string;
}

const dumps = new WeakMap<readonly TableSpec[], readonly [Dumps, Dumps]>();

function dumpsOf(tables: readonly TableSpec[], nullKeys: boolean): Dumps {
  let known = dumps.get(tables);
  if (known === undefined) {
    const make = (nulls: boolean): Dumps => {
      const each = new Map(tables.map((table) => [table.name, `coalesce(${rowsOf(table, nulls)}, '')`]));
      return {
        each: new Map([...each].map(([name, text]) => [name, `SELECT ${text}`])),
        all: `SELECT ${[...each.values()].join(", ")}`,
      };
    };
    dumps.set(tables, known = [make(true), make(false)]);
  }
  return known[nullKeys ? 0 : 1];
}

function rowsOf({ name, columns, key }: TableSpec, nullKeys: boolean): string {
  const where = nullKeys ? "" : ` WHERE ${key.map((column) => `${column} IS NOT NULL`).join(" AND ")}`;
  const row = `'${name} ' || ${columns.map((column) => literalOf(column)).join(` || ',' || `)}`;
  return `(SELECT group_concat(r, char(10)) FROM (SELECT ${row} AS r FROM ${name}${where} ORDER BY r))`;
}
