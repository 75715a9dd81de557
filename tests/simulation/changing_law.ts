/**
 * What tables must hold that change (I1), computed apart from Marmot's own apply: by the names that tables and columns had
 * first, so that it does not matter which of their names a message has. What nobody has said of a column is not looked at:
 * migrations and defaults give it a value on each node.
 */
import { DatabaseSync } from "node:sqlite";
import { tableOfLog } from "../../src/sqlite/triggers.ts";
import type { Stored } from "./cluster_broker.ts";
import type { Entries, Entry } from "./entries.ts";
import type { NodeFile } from "./file.ts";
import type { StreamLaw } from "./law.ts";
import { literalOf } from "./literals.ts";
import type { Column, Migrations } from "./migrations.ts";
import { isTakenUp } from "./operator.ts";
import { Violation } from "./violation.ts";

const DELETES = 3;
const id = (name: string) => `"${name}"`;

/** Key → column → literal; by first names. */
type Rows = Map<string, Map<string, string>>;

/** What tables and columns were called before any rename: no name is given twice. */
class FirstNames {
  private readonly tables = new Map<string, string>();
  private readonly columns = new Map<string, string>();

  constructor({ later }: Migrations) {
    for (const sql of later) {
      const [, table, column, now] = /^ALTER TABLE "(.+)" RENAME (?:COLUMN "(.+)" )?TO "(.+)"$/.exec(sql) ?? [];
      if (column !== undefined) this.columns.set(now!, this.column(column));
      else if (table !== undefined) this.tables.set(now!, this.table(table));
    }
  }

  table(name: string): string {
    return this.tables.get(name) ?? name;
  }

  column(name: string): string {
    return this.columns.get(name) ?? name;
  }
}

/** What columns make of a value: SQLite itself is asked. */
class Types {
  private readonly db = new DatabaseSync(":memory:");
  private readonly known = new Map<string, string>();

  /** The literal of what a column of a type stores. */
  stored(literal: string, type: string): string {
    const name = `${type} ${literal}`;
    let stored = this.known.get(name);
    if (stored === undefined) {
      this.db.exec(`CREATE TABLE t(v ${type}); INSERT INTO t VALUES (${literal})`);
      stored = String(this.db.prepare(`SELECT ${literalOf("v")} AS v FROM t`).get()!.v);
      this.db.exec("DROP TABLE t");
      this.known.set(name, stored);
    }
    return stored;
  }
}

/** The law for one node. */
export class ChangingLaw {
  private readonly names: FirstNames;
  private readonly tables = new Map<string, Rows>();
  private readonly types = new Types();
  private at: (Stored | undefined)[] = [];
  /** what Marmot has taken up already */
  private takenUp: { readonly reader: unknown; readonly schema: string } | undefined;
  /** where rows displace each other, it matters which nodes have the constraint already: said in docs/PROOF.md */
  private readonly displacing: ReadonlySet<string>;

  constructor(
    private readonly migrations: Migrations,
    private readonly law: StreamLaw,
    private readonly entries: Entries,
  ) {
    this.names = new FirstNames(migrations);
    const tables = migrations.tables.flatMap((tables) => [...tables]);
    const unique = tables.filter(([, columns]) => [...columns.values()].some((column) => column.unique));
    this.displacing = new Set(unique.map(([name]) => this.names.table(name)));
  }

  /**
   * @param changes how many migrations the node has made
   * @returns whether anything could be compared: not before Marmot has taken up the schema
   */
  check(file: NodeFile, at: readonly (Stored | undefined)[], changes: number): boolean {
    const schema = `${file.rows("PRAGMA schema_version")}`;
    if (this.takenUp?.reader !== file.reader || this.takenUp.schema !== schema) {
      if (!isTakenUp(file, this.migrations, changes)) return false;
      this.takenUp = { reader: file.reader, schema };
    }
    this.advance(at);
    const parked = file.rows("SELECT DISTINCT table_name FROM __marmot__parked").map(([name]) => String(name));
    const behind = new Set(parked.map((name) => this.firstOfFolded(name)));
    for (const [table, columns] of this.migrations.tables[changes]!) {
      const first = this.names.table(table);
      if (behind.has(first) || this.displacing.has(first)) continue;
      this.compare(file, table, columns);
    }
    return true;
  }

  private firstOfFolded(folded: string): string {
    const names = this.migrations.tables.flatMap((tables) => [...tables.keys()]);
    return this.names.table(names.find((name) => name.toLowerCase() === folded.toLowerCase()) ?? folded);
  }

  private advance(at: readonly (Stored | undefined)[]): void {
    const ways = at.map((target, shard) => this.way(target, this.at[shard]));
    if (ways.includes(undefined)) {
      this.tables.clear();
      this.at = [];
    }
    for (const [shard, target] of at.entries()) {
      for (const stored of ways.includes(undefined) ? this.way(target, undefined)! : ways[shard]!) {
        for (const entry of this.law.of(stored).entries) this.lay(entry, this.tables);
      }
    }
    this.at = [...at];
  }

  /** Messages behind `from`, up to `to`; undefined if the one is not in front of the other: the file went back. */
  private way(to: Stored | undefined, from: Stored | undefined): Stored[] | undefined {
    const way: Stored[] = [];
    let at = to;
    for (; at !== undefined && at !== from; at = at.before) way.push(at);
    return at === from ? way.reverse() : undefined;
  }

  private lay({ table, op, columns, values }: Entry, tables: Map<string, Rows>): void {
    const name = tableOfLog(table);
    if (name === undefined) return;
    const first = this.names.table(name);
    let rows = tables.get(first);
    if (rows === undefined) tables.set(first, rows = new Map());
    const key = values[columns.indexOf("id")]!;
    if (op === DELETES) {
      rows.delete(key);
      return;
    }
    const row = rows.get(key) ?? new Map<string, string>();
    rows.set(key, row);
    columns.forEach((column, place) => row.set(this.names.column(column), values[place]!));
  }

  private compare(file: NodeFile, table: string, columns: ReadonlyMap<string, Column>): void {
    const wanted = this.withPending(file, table);
    const select = ["id", ...columns.keys()].map((column) => literalOf(id(column))).join(", ");
    const found = new Map(
      file.rows(`SELECT ${select} FROM ${id(table)}`).map((row) => {
        const [key, ...values] = row.map(String);
        return [key!, values] as const;
      }),
    );
    for (const key of found.keys()) if (!wanted.has(key)) throw wrong(file, table, `extra row ${key}`);
    for (const [key, row] of wanted) {
      const values = found.get(key);
      if (values === undefined) throw wrong(file, table, `missing row ${key}`);
      for (const [place, [column, { type }]] of [...columns].entries()) {
        const said = row.get(this.names.column(column));
        if (said === undefined) continue;
        const value = this.types.stored(said, type);
        if (value === values[place]) continue;
        throw wrong(file, table, `row ${key}: ${column} is ${values[place]}, not ${value}`);
      }
    }
  }

  /** A pending entry says what it said when it was made; what was filled in since may be as it was, or as others said. */
  private withPending(file: NodeFile, table: string): Rows {
    const log = `__marmot__${table}_change_log`;
    const ofLog = `SELECT name FROM pragma_table_info('${log.replaceAll("'", "''")}') WHERE cid > 2`;
    const columns = file.rows(ofLog).map(([name]) => String(name));
    const select = columns.map((column) => `, ${literalOf(id(column))}`).join("");
    const pending = file.rows(`SELECT op, CAST(stamp AS TEXT)${select} FROM ${id(log)} ORDER BY seq`);
    const names = columns.map((column) => column.slice("val_".length));
    const first = this.names.table(table);
    const rows: Rows = new Map([...this.tables.get(first) ?? []].map(([key, row]) => [key, new Map(row)]));
    for (const entry of pending) {
      const [op, stamp, ...values] = entry.map(String);
      this.lay(
        { ...this.entries.of(stamp!), table: log, op: Number(op), columns: names, values },
        new Map([[first, rows]]),
      );
      if (Number(op) === DELETES) continue;
      const made = new Set(this.entries.of(stamp!).columns.map((column) => this.names.column(column)));
      const row = rows.get(values[names.indexOf("id")]!)!;
      for (const column of names) if (!made.has(this.names.column(column))) row.delete(this.names.column(column));
    }
    return rows;
  }
}

function wrong(file: NodeFile, table: string, what: string): Violation {
  return new Violation(`I1: ${file.path} is not what the law says of ${table}: ${what}`);
}
