/** The schemas of random histories: what SQLite is told, and the law in its own words. */
import type { Placement } from "../../src/broker.ts";
import type { LawTable } from "./law.ts";
import type { Random } from "./random.ts";

export interface Variant {
  readonly shards: number;
  readonly placement: Placement;
  readonly sql: string;
  readonly table: LawTable;
  /** SQL of a random value for each column, by the letter that stands for it */
  readonly values: (column: string, random: Random) => string;
}

export const PAIR: LawTable = { name: "pair", columns: ["id", "n"], key: ["id"], fold: (v) => v, uniques: [] };
const same = (value: string) => value;
const column = (name: string) => (row: ReadonlyMap<string, string>) => {
  const value = row.get(name);
  return value === "NULL" ? undefined : value;
};
const few = (name: string, random: Random) => String(random.below(name === "id" ? 6 : 4));
const letters = (_name: string, random: Random) => random.below(9) === 0 ? "NULL" : `'${random.pick("aAbBc")}'`;
const t = (uniques: LawTable["uniques"] = [], fold = same, columns = ["id", "v", "w"], key = ["id"]): LawTable => {
  return { name: "t", columns, key, fold, uniques };
};

export const VARIANTS: readonly Variant[] = [
  { shards: 2, placement: "rows", sql: "CREATE TABLE t(id INTEGER PRIMARY KEY, v, w)", table: t(), values: few },
  {
    shards: 2,
    placement: "rows",
    sql: "CREATE TABLE t(v, a TEXT, b INT, PRIMARY KEY (b, a)) WITHOUT ROWID",
    table: t([], same, ["v", "a", "b"], ["b", "a"]),
    values: (name, random) => name === "a" ? `'${random.pick("xyz")}'` : String(random.below(3)),
  },
  {
    shards: 2,
    placement: "whole",
    sql: "CREATE TABLE t(id TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, v)",
    table: t([], (value) => value.toLowerCase(), ["id", "v"]),
    values: (name, random) => name === "id" ? `'${random.pick("aAbBcC")}'` : String(random.below(3)),
  },
  {
    shards: 1,
    placement: "whole",
    sql: "CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE, w)",
    table: t([column("v")]),
    values: few,
  },
  {
    shards: 2,
    placement: "whole",
    sql: "CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE, w UNIQUE)",
    table: t([column("v"), column("w")]),
    values: (name, random) => random.below(8) === 0 && name !== "id" ? "NULL" : few(name, random),
  },
  {
    shards: 1,
    placement: "whole",
    sql: "CREATE TABLE t(id INTEGER PRIMARY KEY, v, w); CREATE UNIQUE INDEX t_low ON t(lower(v), w)",
    table: t([(row) => row.get("v") === "NULL" ? undefined : row.get("v")!.toLowerCase() + row.get("w")]),
    values: (name, random) => name === "v" ? letters(name, random) : String(random.below(name === "w" ? 2 : 6)),
  },
  {
    shards: 1,
    placement: "whole",
    sql:
      "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT COLLATE NOCASE, w); CREATE UNIQUE INDEX t_part ON t(v) WHERE w > 1",
    table: t([(row) => row.get("v") !== "NULL" && Number(row.get("w")) > 1 ? row.get("v")!.toLowerCase() : undefined]),
    values: (name, random) => name === "v" ? letters(name, random) : few(name, random),
  },
];
