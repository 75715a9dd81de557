/** Columns whose type is another one on some node for a while: what they store must be the same in the end. */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { affinityOf } from "../src/sqlite/affinity.ts";
import { corePair } from "./support/core_pair.ts";
import { dropColumn } from "./support/drop_column.ts";

const rebuilt = (type: string, others = "") =>
  `BEGIN IMMEDIATE; CREATE TABLE new__t(id INTEGER PRIMARY KEY, ${others}v ${type}); INSERT INTO new__t SELECT * FROM t;
  DROP TABLE t; ALTER TABLE new__t RENAME TO t; COMMIT`;

test("a change waits where a column never had its origin's type, and keeps its value", async () => {
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER)");
  const { a, b } = pair;
  a.run("INSERT INTO t VALUES (1, 1)");
  await pair.converged("t");
  a.run(rebuilt("TEXT"));
  await pair.converged();
  a.run("INSERT INTO t VALUES (2, '007')");
  await pair.converged();
  assert.deepEqual(b.rows("SELECT * FROM t"), [[1, 1]]);
  const reasons = b.node.applier.parkedTables.map(({ reason }) => reason);
  assert.deepEqual(reasons, ["its column v is TEXT at the origin, and NUMERIC here"]);
  b.run(rebuilt("TEXT"));
  await pair.converged("t");
  assert.deepEqual(b.rows("SELECT * FROM t"), [[1, "1"], [2, "007"]]);
});

for (const restarted of [false, true]) {
  const when = restarted ? ", after a restart" : "";
  test(`a node that has a column's next type takes what others store under the type before${when}`, async () => {
    await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER)");
    const { a, b } = pair;
    await pair.converged("t");
    a.run(rebuilt("TEXT"));
    await pair.converged();
    a.run("ALTER TABLE t RENAME COLUMN v TO w");
    await pair.converged();
    if (restarted) a.restart();
    b.run("INSERT INTO t VALUES (1, '007'), (2, 7.5), (3, 'x')");
    await pair.converged();
    assert.deepEqual(a.rows("SELECT * FROM t"), [[1, "7"], [2, "7.5"], [3, "x"]]);
    b.run(`${rebuilt("TEXT")}; ALTER TABLE t RENAME COLUMN v TO w`);
    await pair.converged("t");
    assert.deepEqual(b.rows("SELECT * FROM t"), a.rows("SELECT * FROM t"));
  });
}

test("a column without a type takes what one with a type stores, and a key waits as any other column", async () => {
  const pairs: readonly [schema: string, other: string][] = [
    ["CREATE TABLE t(id TEXT PRIMARY KEY, v REAL)", "CREATE TABLE t(id PRIMARY KEY, v BLOB)"],
    ["CREATE TABLE t(id PRIMARY KEY, v)", "CREATE TABLE t(id INT PRIMARY KEY, v)"],
  ];
  for (const [place, [schema, other]] of pairs.entries()) {
    await using pair = await corePair(schema, { other });
    pair.a.run("INSERT INTO t VALUES ('007', 7)");
    await pair.converged(...place === 0 ? ["t"] : []);
    const waits = pair.b.node.applier.parkedTables.map(({ reason }) => reason);
    assert.deepEqual(waits, place === 0 ? [] : ["its column id is BLOB at the origin, and NUMERIC here"]);
  }
});

const DROP_V = dropColumn("t", "v");

/** All nodes take the first steps together, the others one after the other. */
const RETURNS: readonly [what: string, together: readonly string[], apart: readonly string[]][] = [
  ["a type that comes back", [rebuilt("INTEGER")], [rebuilt("TEXT")]],
  [
    "the type of a column that was dropped and made again",
    [DROP_V, "ALTER TABLE t ADD COLUMN v INTEGER"],
    [rebuilt("TEXT")],
  ],
  [
    "a column that another one takes the place of",
    [rebuilt("INTEGER")],
    ["ALTER TABLE t ADD COLUMN v2 TEXT", "UPDATE t SET v2 = v", DROP_V, "ALTER TABLE t RENAME COLUMN v2 TO v"],
  ],
];

for (const [what, together, apart] of RETURNS) {
  test(`${what} is waited for`, async () => {
    await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)");
    const { a, b } = pair;
    await pair.converged("t");
    for (const step of together) {
      for (const node of [a, b]) node.run(step);
      await pair.converged();
    }
    for (const step of apart) {
      a.run(step);
      await pair.converged();
    }
    a.run("INSERT INTO t VALUES (1, '007')");
    await pair.converged();
    for (const step of apart) {
      b.run(step);
      await pair.converged();
    }
    await pair.converged("t");
    assert.deepEqual(b.rows("SELECT * FROM t"), [[1, "007"]]);
  });
}

test("a type that one node tried and gave up again keeps the others' changes from nothing", async () => {
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)");
  const { a, b } = pair;
  await pair.converged("t");
  for (const type of ["INTEGER", "TEXT"]) {
    a.run(rebuilt(type));
    await pair.converged();
  }
  a.run("INSERT INTO t VALUES (1, '007')");
  b.run("INSERT INTO t VALUES (2, '008')");
  await pair.converged("t");
  assert.deepEqual(b.rows("SELECT * FROM t"), [[1, "007"], [2, "008"]]);
});

test("a column that gets another type, and then the name of one that was dropped, takes what is late", async () => {
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, w TEXT, v INTEGER)");
  const { a, b } = pair;
  for (const node of [a, b]) node.run(rebuilt("INTEGER").replace("SELECT *", "SELECT id, v"));
  await pair.converged("t");
  const steps = [rebuilt("TEXT"), "ALTER TABLE t RENAME COLUMN v TO w"];
  for (const step of steps) {
    a.run(step);
    await pair.converged();
  }
  b.run("INSERT INTO t VALUES (1, 7)");
  await pair.converged();
  assert.deepEqual(a.rows("SELECT * FROM t"), [[1, "7"]]);
  for (const step of steps) {
    b.run(step);
    await pair.converged();
  }
  b.run("INSERT INTO t VALUES (2, '008')");
  await pair.converged("t");
  assert.deepEqual(a.rows("SELECT * FROM t"), [[1, "7"], [2, "008"]]);
});

for (const kept of ["", " DEFAULT 7"]) {
  const how = kept === "" ? "loses" : "keeps";
  test(`rows from a node without a column get its DEFAULT as it was stored before a rebuild that ${how} it`, async () => {
    await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, w)");
    const { a, b } = pair;
    await pair.converged("t");
    const migrations = ["ALTER TABLE t ADD COLUMN v REAL DEFAULT 7", rebuilt(`TEXT${kept}`, "w, ")];
    for (const migration of migrations) {
      a.run(migration);
      await pair.converged();
    }
    b.run("INSERT INTO t VALUES (1, 'w')");
    await pair.converged();
    assert.deepEqual(a.rows("SELECT * FROM t"), [[1, "w", "7.0"]]);
    for (const migration of migrations) b.run(migration);
    await pair.converged("t");
  });
}

test("a table whose new column has a DEFAULT that fails is left out, and named", async () => {
  await using pair = await corePair(
    "CREATE TABLE t(id INTEGER PRIMARY KEY, w); CREATE TABLE u(id INTEGER PRIMARY KEY, w)",
  );
  const { a } = pair;
  await pair.converged();
  a.run("ALTER TABLE t ADD COLUMN v TEXT DEFAULT (json('bad'))");
  a.run("INSERT INTO u VALUES (1, 'w')");
  await pair.converged("u");
  const skipped = a.node.installed.schema.skipped.map(({ name, reason }) => `${name}: ${reason}`);
  assert.match(skipped.join("\n"), /^t: SQLite refuses to capture it: malformed JSON$/m);
});

test("affinities are those that SQLite gives to the types", () => {
  using db = new DatabaseSync(":memory:");
  const types = ["", "INT", "CHARINT", "VARCHAR(10)", "TEXTBLOB", "REALBLOB", "FLOATING POINT", "DOUBLE", "REAL"];
  types.push("NUMERIC", "BOOLEAN", "DATETIME", "STRING", "ANY", "BLOB", "NUMERIC BLOB", "CLOB", "int", "text");
  const strict = ["INT", "INTEGER", "REAL", "TEXT", "BLOB", "ANY"];
  const probes = ["'007'", "7", "7.0"];
  const stored = { B: "text integer real", T: "text text text", N: "integer integer integer", R: "real real real" };
  for (const type of types) {
    db.exec(`CREATE TABLE t(v ${type}); INSERT INTO t VALUES (${probes.join("), (")})`);
    const found = db.prepare("SELECT group_concat(typeof(v), ' ') AS types FROM t").get()!.types;
    assert.equal(found, stored[affinityOf(type, false) as keyof typeof stored], type);
    db.exec("DROP TABLE t");
  }
  // STRICT tables refuse what does not become of their type; ANY keeps a text that looks like a number
  for (const type of strict) {
    const [probe, affinity] = type === "ANY" ? ["'007'", "B"] : type === "BLOB" ? ["X'37'", "B"] : ["7", ""];
    db.exec(`CREATE TABLE t(v ${type}) STRICT; INSERT INTO t VALUES (${probe})`);
    const found = String(db.prepare("SELECT typeof(v) AS type FROM t").get()!.type);
    const expected = affinity || { integer: "N", real: "R", text: "T" }[found];
    assert.equal(affinityOf(type, true), expected, `${type} (strict)`);
    if (type === "ANY") assert.equal(found, "text");
    db.exec("DROP TABLE t");
  }
});
