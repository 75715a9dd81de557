/** Reads the schema of the application's database: what can be captured, and why the rest can't. */
import { createHash } from "node:crypto";
import { NO_AFFINITY } from "../change.ts";
import type { Database, Statement } from "../database.ts";
import { affinityOf } from "./affinity.ts";
import { sqliteProblem } from "./connection.ts";
import { generatedExpressions, readIndexSql, withoutComments } from "./index_sql.ts";
import { fold, id, text } from "./quote.ts";
import type { TextEncoding } from "./values.ts";

/** Everything that Marmot adds to a database has a name that begins so. */
export const PREFIX = "__marmot__";

/** SQLite's tables and results have 2,000 at most: in the change log, and where an entry is read, there are some besides */
const MAX_COLUMNS = 1_900;

export interface UniqueTerm {
  /** SQL over the table's own columns */
  readonly sql: string;
  readonly collation: string;
}

/** A UNIQUE constraint or index besides the primary key. */
export interface Unique {
  readonly name: string;
  readonly terms: readonly UniqueTerm[];
  /** the condition of a partial index */
  readonly where: string | null;
}

export interface Table {
  readonly name: string;
  /** columns that travel, in declared order: not the generated ones */
  readonly columns: readonly string[];
  /** one of AFFINITIES for each of `columns` */
  readonly affinities: string;
  readonly generated: readonly string[];
  /** SQL of each column's DEFAULT, "NULL" where it has none, or only the application can compute it */
  readonly defaults: readonly string[];
  /** SQL of the zero of each column's type, NULL where it may be that; null where none may be made up: see zeroOf */
  readonly zeros: readonly (string | null)[];
  /** primary key columns in key order; ["rowid"] for a table without one (--rowid-tables) */
  readonly key: readonly string[];
  /** COLLATE for each key column, with a space before it, where the key compares otherwise than its column; "" as a rule */
  readonly keyCollates: readonly string[];
  /** indexes of `key` in `columns` */
  readonly keyIndexes: readonly number[];
  readonly collations: readonly string[];
  /** what the rowid is called; undefined if there is none, or columns have taken all its names */
  readonly rowid: string | undefined;
  /** the key can hold NULL, as SQLite lets any key but that of WITHOUT ROWID and INTEGER PRIMARY KEY */
  readonly nullableKey: boolean;
  readonly uniques: readonly Unique[];
  /** INTEGER PRIMARY KEY: the database assigns it */
  readonly assignedKey: boolean;
  /** some foreign key on this table has an action for UPDATE: NEW may be stale in our trigger */
  readonly cascadesOnUpdate: boolean;
  /** foreign keys with ON DELETE CASCADE lead back to this table: a row that displaces another may go with it */
  readonly cascadesToItself: boolean;
  /** some constraint says ON CONFLICT: Marmot's own statements have to overrule it */
  readonly conflictClause: boolean;
  /** CREATE TABLE as written */
  readonly sql: string;
  readonly fingerprint: string;
}

export interface SkippedTable {
  readonly name: string;
  readonly reason: string;
}

export interface Trigger {
  readonly name: string;
  readonly table: string;
  readonly sql: string;
  /** place in sqlite_schema; SQLite fires the highest first */
  readonly order: number;
}

export interface Schema {
  readonly encoding: TextEncoding;
  /** by folded name; Marmot's own are left out */
  readonly tables: ReadonlyMap<string, Table>;
  readonly skipped: readonly SkippedTable[];
  readonly triggers: readonly Trigger[];
  /** folded names */
  readonly views: ReadonlySet<string>;
  /** Marmot's own tables: folded name → columns */
  readonly own: ReadonlyMap<string, readonly string[]>;
}

const versions = new WeakMap<Database, Statement>();

/** PRAGMA schema_version: counts every change of the schema, by anyone. Read in every transaction, so it is compiled once. */
export function schemaVersion(db: Database): number {
  let statement = versions.get(db);
  if (statement === undefined) versions.set(db, statement = db.prepare("PRAGMA main.schema_version"));
  return Number(statement.get()![0]);
}

interface ColumnRow {
  name: string;
  type: string;
  notNull: boolean;
  defaultSql: string | null;
  keyPlace: number;
  hidden: number;
}

interface TableRow {
  name: string;
  type: string;
  withoutRowid: boolean;
  strict: boolean;
  columns: ColumnRow[];
  indexes: IndexRow[];
  cascades: boolean;
  cascadesToItself: boolean;
}

interface IndexRow {
  name: string;
  origin: string;
  terms: { column: string | null; cid: number; collation: string }[];
}

/** Reads the whole schema; a few queries, whatever the number of tables. */
export function readSchema(db: Database, rowidTables: boolean): Schema {
  const sqlOf = new Map<string, string>();
  const triggers: Trigger[] = [];
  const views = new Set<string>();
  const objects = db.prepare("SELECT type, name, tbl_name, sql, rowid FROM main.sqlite_schema ORDER BY rowid").all();
  for (const [type, name, table, sql, order] of objects) {
    if (type === "trigger") {
      triggers.push({ name: String(name), table: String(table), sql: String(sql), order: Number(order) });
    } else if (type === "view") {
      views.add(fold(String(name)));
    } else if (sql !== null) {
      sqlOf.set(`${type} ${fold(String(name))}`, String(sql));
    }
  }
  const tables = new Map<string, Table>();
  const skipped: SkippedTable[] = [];
  const own = new Map<string, string[]>();
  const rows = readTables(db);
  const strange = strangeTables(db, rows, sqlOf);
  for (const row of rows) {
    if (fold(row.name).startsWith(PREFIX)) {
      own.set(fold(row.name), row.columns.map((column) => column.name));
      continue;
    }
    const reason = whyNotCaptured(row, rowidTables, strange);
    if (reason !== undefined) skipped.push({ name: row.name, reason });
    else tables.set(fold(row.name), describe(db, row, sqlOf));
  }
  const encoding = String(db.prepare("PRAGMA main.encoding").get()![0]) as TextEncoding;
  return { encoding, tables, skipped, triggers, views, own };
}

function whyNotCaptured(row: TableRow, rowidTables: boolean, strange: readonly TableRow[]): string | undefined {
  if (row.type === "virtual") {
    return "it is a virtual table: its content is rebuilt on each node by triggers or by the application";
  }
  if (row.type === "shadow") return "it belongs to a virtual table";
  const owner = strange.find(({ name }) => fold(row.name).startsWith(`${fold(name)}_`));
  if (owner !== undefined) return `it may belong to the virtual table ${owner.name}, whose module is not known here`;
  const key = row.indexes.find(({ origin }) => origin === "pk")?.terms.map(({ cid }) => cid) ?? [];
  if (new Set(key).size < key.length) return "its primary key has a column twice";
  if (row.columns.length > MAX_COLUMNS) return `it has more than ${MAX_COLUMNS} columns`;
  if (row.columns.some((column) => column.keyPlace > 0)) return undefined;
  if (rowidTables && rowidName(row) === undefined) return "its columns have taken all names of its rowid";
  if (rowidTables) return undefined;
  return "it has no primary key (--rowid-tables captures it by rowid: rows that two nodes add take each other's place)";
}

const MODULE =
  /^CREATE\s+VIRTUAL\s+TABLE\s+(?:(["'`])(?:(?!\1).|\1\1)*\1|\[[^\]]*\]|[^\s"'`[]+)\s+USING\s+["'`[]?([^\s"'`\](,;]+)/is;

/** Virtual tables whose module only the application has: SQLite can't tell here which tables they keep their content in. */
function strangeTables(db: Database, rows: readonly TableRow[], sqlOf: Map<string, string>): TableRow[] {
  const virtual = rows.filter(({ type }) => type === "virtual");
  if (virtual.length === 0) return [];
  const modules = new Set(db.prepare("SELECT name FROM pragma_module_list").all().map(([name]) => fold(String(name))));
  return virtual.filter(({ name }) => {
    const module = MODULE.exec(withoutComments(sqlOf.get(`table ${fold(name)}`) ?? ""))?.[2];
    return module === undefined || !modules.has(fold(module));
  });
}

function readTables(db: Database): TableRow[] {
  const rows = new Map<string, TableRow>();
  const list =
    `SELECT name, type, wr, strict FROM pragma_table_list WHERE schema = 'main' AND type <> 'view' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'`;
  for (const [name, type, withoutRowid, strict] of db.prepare(list).all()) {
    rows.set(String(name), {
      name: String(name),
      type: String(type),
      withoutRowid: Number(withoutRowid) === 1,
      strict: Number(strict) === 1,
      columns: [],
      indexes: [],
      cascades: false,
      cascadesToItself: false,
    });
  }
  const from = `FROM (${list} AND type = 'table') AS l`;
  const columns =
    `SELECT l.name, c.name, c.type, c."notnull", c.dflt_value, c.pk, c.hidden ${from}, pragma_table_xinfo(l.name) AS c ORDER BY l.name, c.cid`;
  for (const [table, name, type, notNull, dflt, pk, hidden] of db.prepare(columns).all()) {
    rows.get(String(table))!.columns.push({
      name: String(name),
      type: String(type),
      notNull: Number(notNull) === 1,
      defaultSql: dflt === null ? null : String(dflt),
      keyPlace: Number(pk),
      hidden: Number(hidden),
    });
  }
  const indexes =
    `SELECT l.name, i.name, i.origin, x.name, x.cid, x.coll ${from}, pragma_index_list(l.name) AS i, pragma_index_xinfo(i.name) AS x WHERE i."unique" = 1 AND x.key = 1 ORDER BY l.name, i.name, x.seqno`;
  for (const [table, name, origin, column, cid, coll] of db.prepare(indexes).all()) {
    const list = rows.get(String(table))!.indexes;
    if (list.at(-1)?.name !== String(name)) list.push({ name: String(name), origin: String(origin), terms: [] });
    const term = { column: column === null ? null : String(column), cid: Number(cid), collation: String(coll) };
    list.at(-1)!.terms.push(term);
  }
  const keys =
    `SELECT DISTINCT f."table" ${from}, pragma_foreign_key_list(l.name) AS f WHERE f.on_update NOT IN ('NO ACTION', 'RESTRICT')`;
  const parents = new Set(db.prepare(keys).all().map(([parent]) => fold(String(parent))));
  for (const row of rows.values()) row.cascades = parents.has(fold(row.name));
  const cascades =
    `SELECT f."table", l.name ${from}, pragma_foreign_key_list(l.name) AS f WHERE f.on_delete = 'CASCADE'`;
  const children = new Map<string, string[]>();
  for (const [parent, child] of db.prepare(cascades).all().map((pair) => pair.map((name) => fold(String(name))))) {
    const known = children.get(parent!);
    if (known === undefined) children.set(parent!, [child!]);
    else known.push(child!);
  }
  for (const row of rows.values()) row.cascadesToItself = isInCircle(fold(row.name), children);
  return [...rows.values()];
}

/** @param children of a table: those whose rows go with its rows */
function isInCircle(table: string, children: ReadonlyMap<string, readonly string[]>): boolean {
  // a Set that grows while it is walked through is walked to its end
  const reached = new Set(children.get(table));
  for (const from of reached) for (const to of children.get(from) ?? []) reached.add(to);
  return reached.has(table);
}

/** PRIMARY KEY (name COLLATE …): the key's collation may be another than its column's. */
const KEY_COLLATION = /\bPRIMARY\s+KEY\s*\((?:"(?:[^"]|"")*"|[^()])*\bCOLLATE\b/i;

function describe(db: Database, row: TableRow, sqlOf: Map<string, string>): Table {
  const travelling = row.columns.filter((column) => column.hidden === 0);
  const keyColumns = travelling.filter((column) => column.keyPlace > 0).sort((a, b) => a.keyPlace - b.keyPlace);
  const byRowid = keyColumns.length === 0;
  const rowid = row.withoutRowid ? undefined : rowidName(row);
  const key = byRowid ? [rowid!] : keyColumns.map((column) => column.name);
  const columns = byRowid ? [key[0]!, ...travelling.map((c) => c.name)] : travelling.map((c) => c.name);
  const defaults = travelling.map((column) => knownHere(db, defaultOf(column.defaultSql)));
  const keyIndex = row.indexes.find((index) => index.origin === "pk");
  const assignedKey = !byRowid && keyIndex === undefined && !row.withoutRowid;
  const collations = key.map((_, place) => keyIndex?.terms[place]?.collation ?? "BINARY");
  const all = row.indexes.filter((index) => index.origin !== "pk").map((index) => describeUnique(index, sqlOf));
  const uniques = all.filter((unique) => !holdsKey(unique, key, collations));
  const sql = sqlOf.get(`table ${fold(row.name)}`) ?? "";
  const plain = withoutComments(sql);
  const isUnique = uniqueColumns(uniques, new Set(columns.map(id)), plain);
  const affinities = travelling.map(({ type }) => affinityOf(type, row.strict)).join("");
  const zeros = travelling.map((column, place) => isUnique(column.name) ? null : zeroOf(column, affinities[place]!));
  return {
    name: row.name,
    columns,
    affinities: byRowid ? `N${affinities}` : affinities,
    generated: row.columns.filter((column) => column.hidden !== 0).map((column) => column.name),
    defaults: byRowid ? ["NULL", ...defaults] : defaults,
    zeros: byRowid ? [null, ...zeros] : zeros,
    key,
    keyCollates: collations.map((collation) => KEY_COLLATION.test(plain) ? ` COLLATE ${id(collation)}` : ""),
    keyIndexes: key.map((name) => columns.indexOf(name)),
    collations,
    rowid,
    nullableKey: !byRowid && !assignedKey && !row.withoutRowid && keyColumns.some((column) => !column.notNull),
    uniques,
    assignedKey,
    cascadesOnUpdate: row.cascades,
    cascadesToItself: row.cascadesToItself,
    conflictClause: /\bON\s+CONFLICT\b/i.test(plain),
    sql,
    fingerprint: fingerprint(key, collations, all),
  };
}

/** A name that stands alone is a string to DEFAULT, quoted or not; anywhere else it would be a column. */
function defaultOf(sql: string | null): string {
  if (sql === null) return "NULL";
  const name = /^(?:"((?:[^"]|"")*)"|`((?:[^`]|``)*)`|\[([^\]]*)\]|([A-Za-z_]\w*))$/.exec(sql);
  if (name === null || (name[4] !== undefined && DEFAULT_WORDS.test(name[4]))) return sql;
  return text(name[1]?.replaceAll('""', '"') ?? name[2]?.replaceAll("``", "`") ?? name[3] ?? name[4]!);
}

/** An expression may call functions of the application. */
function knownHere(db: Database, sql: string): string {
  if (!sql.includes("(")) return sql;
  try {
    db.prepare(`SELECT (${sql})`);
    return sql;
  } catch (error) {
    if (sqliteProblem(error) !== "other") throw error;
    return "NULL";
  }
}

const DEFAULT_WORDS = /^(NULL|TRUE|FALSE|CURRENT_TIME|CURRENT_DATE|CURRENT_TIMESTAMP)$/i;

/**
 * Does a UNIQUE value hang on a column, itself or in an expression? One whose name is part of another that stands there is
 * taken for it.
 */
function uniqueColumns(
  uniques: readonly Unique[],
  stored: ReadonlySet<string>,
  sql: string,
): (column: string) => boolean {
  const terms = uniques.flatMap((unique) => unique.terms.map((term) => term.sql));
  const computed = terms.filter((term) => !stored.has(term));
  if (computed.length > 0) computed.push(...generatedExpressions(sql));
  const text = fold(computed.join("\n"));
  return (column) =>
    terms.includes(id(column)) || [column, id(column).slice(1, -1)].some((name) => text.includes(fold(name)));
}

/** None where it has a DEFAULT, or is in the key or in a UNIQUE value: rows would take each other's place. */
function zeroOf({ notNull, defaultSql, keyPlace }: ColumnRow, affinity: string): string | null {
  if (defaultSql !== null || keyPlace > 0) return null;
  if (!notNull) return "NULL";
  if (affinity === "T") return "''";
  return affinity === NO_AFFINITY ? "x''" : "0";
}

/** A name for the rowid that no column of the table hides. */
function rowidName(row: TableRow): string | undefined {
  const taken = new Set(row.columns.map((column) => fold(column.name)));
  return ["rowid", "_rowid_", "oid"].find((name) => !taken.has(name));
}

function describeUnique(index: IndexRow, sqlOf: Map<string, string>): Unique {
  const sql = sqlOf.get(`index ${fold(index.name)}`);
  const parts = sql === undefined ? { terms: [], where: null } : readIndexSql(sql);
  const terms = index.terms.map((term, place) => ({
    sql: term.column === null ? (term.cid === -1 ? "rowid" : `(${parts.terms[place]})`) : id(term.column),
    collation: term.collation,
  }));
  return { name: index.name, terms, where: parts.where };
}

/** Are rows that are equal in these terms one row, since the key is among them? Then none displaces another. */
function holdsKey({ terms }: Unique, key: readonly string[], collations: readonly string[]): boolean {
  return key.every((column, place) =>
    terms.some(({ sql, collation }) =>
      sql === id(column) && [fold(collations[place]!), "binary"].includes(fold(collation))
    )
  );
}

/**
 * Two nodes whose tables have the same fingerprint agree about which rows are the same and which displace each other.
 * 16 hex digits of sha256.
 */
function fingerprint(key: readonly string[], collations: readonly string[], uniques: readonly Unique[]): string {
  const plain = (sql: string) => fold(sql).replace(/\s+/g, " ");
  const sets = uniques.map(({ terms, where }) => [
    terms.map((term) => [plain(term.sql), fold(term.collation)]),
    where === null ? null : plain(where),
  ]);
  const ordered = sets.map((set) => JSON.stringify(set)).sort();
  const all = JSON.stringify([key.map(fold), collations.map(fold), [...new Set(ordered)]]);
  return createHash("sha256").update(all).digest("hex").slice(0, 16);
}
