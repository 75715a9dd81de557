/** Schemas drawn at random: what SQLite is told, and which values its columns take. */
import type { Random } from "../support/random.ts";

export interface TableSpec {
  readonly name: string;
  /** CREATE TABLE, CREATE UNIQUE INDEX: what the law's own database gets as well */
  readonly sql: readonly string[];
  /** columns that travel */
  readonly columns: readonly string[];
  readonly key: readonly string[];
  /** how the key compares where that is not as its columns do */
  readonly keyCollate: string;
  /** SQL of a random value */
  readonly value: (column: string, random: Random) => string;
}

type Values = (random: Random) => string;

const few: Values = (random) => String(random.below(4));
const some: Values = (random) => String(random.below(7));
const letters: Values = (random) => `'${random.pick("aAbBcC")}'`;
const texts: Values = (random) =>
  random.pick(["''", "'a'", "'it''s'", "'🐟'", "(+CAST(X'610062' AS TEXT))", "(+CAST(X'FF61' AS TEXT))", "'A'"]);
const blobs: Values = (random) => random.pick(["X''", "X'00'", "X'6100'", "X'ff'", "zeroblob(3)"]);
const numbers: Values = (random) =>
  random.pick(["0.5", "-0.0", "1.0", "1", "1e300", "9223372036854775807", "-9223372036854775808", "0"]);
const mixed: Values = (random) => random.pick(["1", "1.0", "'1'", "X'31'", "NULL", "2", "'b'"]);

const orNull = (values: Values): Values => (random) => random.below(6) === 0 ? "NULL" : values(random);

/** Bytes that nothing compresses; now and then more than a small message holds. */
const large: Values = (random) => {
  if (random.below(12) > 0) return few(random);
  const bytes = random.pick([40, 300, 3_000]);
  return `X'${random.hex(2 * bytes)}'`;
};

const PLAIN = [few, few, orNull(few), texts, blobs, numbers, mixed, large];

interface Key {
  readonly columns: readonly { readonly name: string; readonly type: string; readonly values: Values }[];
  readonly constraint: string;
  readonly collate?: string;
  readonly withoutRowid?: boolean;
  readonly nulls?: boolean;
}

const id = (type: string, values: Values) => [{ name: "id", type, values }];
const KEYS: readonly Key[] = [
  { columns: id("INTEGER PRIMARY KEY", some), constraint: "" },
  { columns: id("INTEGER PRIMARY KEY", some), constraint: "" },
  { columns: id("TEXT PRIMARY KEY NOT NULL", letters), constraint: "" },
  { columns: id("TEXT COLLATE NOCASE PRIMARY KEY NOT NULL", letters), constraint: "" },
  {
    columns: id("TEXT NOT NULL", letters),
    constraint: ", PRIMARY KEY (id COLLATE NOCASE)",
    collate: " COLLATE NOCASE",
  },
  { columns: id("BLOB PRIMARY KEY NOT NULL", blobs), constraint: "" },
  { columns: id("PRIMARY KEY", orNull(numbers)), constraint: "", nulls: true },
  { columns: id("TEXT PRIMARY KEY", orNull(letters)), constraint: "", nulls: true },
  {
    columns: [{ name: "a", type: "TEXT NOT NULL", values: letters }, { name: "b", type: "INT NOT NULL", values: few }],
    constraint: ", PRIMARY KEY (b, a)",
    withoutRowid: true,
  },
  {
    columns: [{ name: "a", type: "", values: orNull(few) }, { name: "b", type: "TEXT", values: letters }],
    constraint: ", PRIMARY KEY (a, b)",
    nulls: true,
  },
];

interface Uniqueness {
  /** of column v, of column w, of the table, statements of their own */
  readonly v?: string;
  readonly w?: string;
  readonly table?: string;
  readonly index?: (table: string) => string;
  readonly values?: Values;
}

const NONE: Uniqueness = {};
const UNIQUENESS: readonly Uniqueness[] = [
  { v: "UNIQUE" },
  { v: "UNIQUE", w: "UNIQUE" },
  { table: ", UNIQUE (v, w)" },
  { v: "UNIQUE ON CONFLICT REPLACE" },
  { v: "TEXT COLLATE NOCASE UNIQUE", values: orNull(letters) },
  { index: (t) => `CREATE UNIQUE INDEX ${t}_part ON ${t}(v) WHERE w > 1` },
  { index: (t) => `CREATE UNIQUE INDEX ${t}_low ON ${t}(lower(v), w)`, values: orNull(letters) },
  { index: (t) => `CREATE UNIQUE INDEX ${t}_nocase ON ${t}(v COLLATE NOCASE) WHERE w IS NOT NULL`, values: letters },
];

const GENERATED = ["", "", "", ", g AS (coalesce(v, 'none') || w)", ", g AS (typeof(v) || w) STORED"];

/** A table of its own key, columns v, w and perhaps more. */
export function drawTable(name: string, random: Random): TableSpec {
  const key = random.pick(KEYS);
  // rows that share a key with NULL in it are one row in the cluster and several here, each with UNIQUE values
  const unique = random.below(2) === 0 || key.nulls ? NONE : random.pick(UNIQUENESS);
  const isUnique = unique !== NONE;
  const vValues = unique.values ?? (isUnique ? orNull(few) : random.pick(PLAIN));
  const wValues = isUnique ? orNull(few) : random.pick(PLAIN);
  const values = new Map<string, Values>([...key.columns.map((c) => [c.name, c.values] as const), ["v", vValues]]);
  values.set("w", wValues);
  const columns = key.columns.map(({ name, type }) => `${name} ${type}`);
  columns.push(`v ${unique.v ?? ""}`, `w ${unique.w ?? ""}`);
  if (random.below(2) === 0) {
    columns.push("x TEXT NOT NULL DEFAULT 'x'");
    values.set("x", texts);
  }
  const withoutRowid = key.withoutRowid ?? (!key.nulls && random.below(4) === 0);
  const generated = unique.values === undefined ? random.pick(GENERATED) : "";
  const constraints = `${generated}${key.constraint}${unique.table ?? ""}`;
  const sql = [`CREATE TABLE ${name}(${columns.join(", ")}${constraints})${withoutRowid ? " WITHOUT ROWID" : ""}`];
  if (unique.index !== undefined) sql.push(unique.index(name));
  return {
    name,
    sql,
    columns: [...values.keys()],
    key: key.constraint.includes("(b, a)") ? ["b", "a"] : key.columns.map((column) => column.name),
    keyCollate: key.collate ?? "",
    value: (column, random) => values.get(column)!(random),
  };
}

/** A table with the columns id, v and w. */
export function simpleTable(name: string, sql: string, values: Values, keys: Values = some): TableSpec {
  const value = (column: string, random: Random) => column === "id" ? keys(random) : values(random);
  return { name, sql: [sql], columns: ["id", "v", "w"], key: ["id"], keyCollate: "", value };
}

function twoColumns(name: string, type: string): TableSpec {
  const sql = [`CREATE TABLE ${name}(id ${type}, n)`];
  return { name, sql, columns: ["id", "n"], key: ["id"], keyCollate: "", value: (_column, random) => few(random) };
}

/** Its two rows are always written together: readers must never see them differ. */
export const PAIR = twoColumns("pair", "INTEGER PRIMARY KEY");
/** Each row is made once and never changed; a trigger notes it in `audit`, which is not replicated. */
export const LEDGER = twoColumns("ledger", "TEXT PRIMARY KEY NOT NULL");

export const AUDIT = [
  "CREATE TABLE audit(what)",
  "CREATE TRIGGER ledger_audit AFTER INSERT ON ledger BEGIN INSERT INTO audit VALUES (NEW.id); END",
];
