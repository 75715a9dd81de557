import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { SqlText, type SqlValue } from "../src/change.ts";
import type { Database } from "../src/database.ts";
import { openDatabase } from "../src/sqlite/connection.ts";
import { type AroundSnapshot, EntryReader } from "../src/sqlite/entry_reader.ts";
import { Random } from "./support/random.ts";
import { tempFolder } from "./support/tmp.ts";

const plainly: AroundSnapshot = (snapshot) => snapshot();

const ENTRIES = 4_000;
/** NUL, Latin-1, a surrogate, overlong and cut-off sequences, U+FFFD itself, a byte order mark: in hex */
const PIECES = [
  "61",
  "7a7a",
  "00",
  "c3a9",
  "e9",
  "eda080",
  "edb080",
  "f09f9880",
  "ff",
  "efbfbd",
  "efbbbf",
  "c080",
  "e282",
];

function expected(value: SqlValue): unknown {
  if (value instanceof SqlText) return ["text", Buffer.from(value.bytes).toString("hex")];
  if (value instanceof Uint8Array) return ["blob", Buffer.from(value).toString("hex")];
  return value;
}

for (const encoding of ["UTF-8", "UTF-16le"]) {
  test(`entries are read to the byte, whatever text they hold (${encoding})`, async () => {
    await using folder = await tempFolder();
    const app = new DatabaseSync(folder.file("a.db"));
    app.exec(`PRAGMA encoding = '${encoding}'; CREATE TABLE log(seq INTEGER PRIMARY KEY, op, stamp, a, b)`);
    const random = new Random(1);
    const wanted: unknown[][] = [];
    app.exec("BEGIN");
    for (let seq = 1; seq <= ENTRIES; seq++) {
      const values = [0, 1].map((): [sql: string, wanted: unknown] => {
        if (encoding === "UTF-8" && random.below(4) > 0) {
          const count = random.below(10) === 0 ? 40 : random.below(4);
          const hex = Array.from({ length: count }, () => random.pick(PIECES)).join("");
          return random.below(8) === 0 ? [`x'${hex}'`, ["blob", hex]] : [`CAST(x'${hex}' AS TEXT)`, ["text", hex]];
        }
        const [sql, value] = random.pick(
          [["NULL", null], ["7", 7n], ["-0.5", -0.5], ["'é'", ["text", "c3a9"]]] as const,
        );
        return [sql, value];
      });
      app.exec(`INSERT INTO log VALUES (${seq}, 1, ${seq * 3}, ${values.map(([sql]) => sql).join(", ")})`);
      wanted.push(values.map(([, value]) => value));
    }
    app.exec("COMMIT");
    const db = openDatabase(folder.file("a.db"));
    const reader = new EntryReader(db, "log", ["l.a", "l.b"], encoding as "UTF-8");
    // the first ones have no text in some column, so that what is known of the columns grows
    const entries = [[0, 2, 10], [2, 50, 48], [50, ENTRIES, ENTRIES]].flatMap(([after, to, limit]) =>
      reader.read(after!, to!, limit!, plainly)
    );
    assert.deepEqual(entries.map(({ values }) => values.map(expected)), wanted);
    assert.deepEqual(entries.at(-1), { ...entries.at(-1), seq: ENTRIES, op: 1, stamp: BigInt(ENTRIES * 3) });
    db.close();
    app.close();
  });
}

test("a lock that ends the read in which a text was seen first leaves nothing unread", async () => {
  await using folder = await tempFolder();
  const db = openDatabase(folder.file("a.db"));
  db.exec("CREATE TABLE log(seq INTEGER PRIMARY KEY, op, stamp, a, b)");
  db.exec("INSERT INTO log VALUES (1, 1, 1, 'a', 'x'), (2, 1, 2, 7, CAST(x'610062' AS TEXT)), (3, 1, 3, 7, 'b')");
  let locked = false;
  const prepare = (sql: string) => {
    if (locked) throw new Error("database is locked");
    return db.prepare(sql);
  };
  const reader = new EntryReader({ ...db, prepare } as Database, "log", ["l.a", "l.b"], "UTF-8");
  const read = () => reader.read(0, 3, 3, plainly).map(({ values }) => values.map(expected));
  reader.read(2, 3, 1, plainly);
  locked = true;
  // the first text of a column, and then one that is read again as bytes, which takes a statement more
  assert.throws(read, /locked/);
  locked = false;
  assert.deepEqual(read(), [[["text", "61"], ["text", "78"]], [7n, ["text", "610062"]], [7n, ["text", "62"]]]);
  db.close();
});
