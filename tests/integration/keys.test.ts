import assert from "node:assert/strict";
import { Real } from "../support/app.ts";
import { clusterTests } from "../support/cluster.ts";

const test = clusterTests();

/** Inserts, changes and deletes rows, moves keys, and puts a deleted key back: whatever the kind of key. */
const KEYS: readonly [kind: string, table: string, declaration: string, literals: readonly string[]][] = [
  ["integer", "k_integer", "k INTEGER PRIMARY KEY, v", ["1", "-9223372036854775808", "9223372036854775807", "0", "7"]],
  ["descending integer", "k_desc", "k INTEGER PRIMARY KEY DESC, v", ["1", "2", "9223372036854775807", "0", "7"]],
  ["text", "k_text", "k TEXT PRIMARY KEY, v", ["'a'", "'A'", "''", "'a' || char(0) || 'b'", "'🦫'"]],
  ["blob", "k_blob", "k BLOB PRIMARY KEY, v", ["x'00'", "x''", "x'ff00ff'", "'text'", "x'74657874'"]],
  ["real", "k_real", "k REAL PRIMARY KEY, v", ["0.5", "-1.5", "1e300", "0.1", "9e999"]],
  ["typeless", "k_typeless", "k PRIMARY KEY, v", ["1", "'1'", "x'31'", "1.5", "'1.5'"]],
  ["WITHOUT ROWID", "k_without", "k TEXT PRIMARY KEY, v", ["'a'", "'b'", "''", "'c'", "'d'"]],
  ["NUMERIC", "k_numeric", "k NUMERIC PRIMARY KEY, v", ["1", "'abc'", "2.5", "9007199254740993", "1e20"]],
];

for (const [kind, table, declaration, literals] of KEYS) {
  test(`rows with a ${kind} key are made, changed, moved, deleted and made again`, async ({ a, b, schema, converged }) => {
    await schema(`CREATE TABLE ${table}(${declaration})${kind === "WITHOUT ROWID" ? " WITHOUT ROWID" : ""}`);
    const [first = "", second = "", third = "", fourth = "", fifth = ""] = literals;
    await a.app.script(literals.slice(0, 4).map((k) => `INSERT INTO ${table} VALUES (${k}, 'made');`).join("\n"));
    await converged();
    await b.app.script(`UPDATE ${table} SET v = 'changed' WHERE k = ${second};
      UPDATE ${table} SET k = ${fifth} WHERE k = ${third};
      DELETE FROM ${table} WHERE k = ${first};`);
    await converged();
    await a.app.script(`INSERT INTO ${table} VALUES (${first}, 'again');
      BEGIN; DELETE FROM ${table} WHERE k = ${fourth}; INSERT INTO ${table} VALUES (${fourth}, 'replaced'); COMMIT;`);
    await converged();
    assert.equal(await b.app.value(`SELECT count(*) FROM ${table}`), 4);
    assert.equal(await b.app.value(`SELECT v FROM ${table} WHERE k = ${fourth}`), "replaced");
  });
}

test("rows with a composite key, in another order than the columns, are told apart", async ({ a, b, schema, converged }) => {
  await schema("CREATE TABLE composite(v, x TEXT, y INTEGER, z BLOB, PRIMARY KEY (z, x, y))");
  await a.app.script(
    `INSERT INTO composite VALUES (1, 'a', 1, x'00'), (2, 'a', 2, x'00'), (3, 'b', 1, x'00'), (4, 'a', 1, x'01')`,
  );
  await converged();
  await b.app.script("UPDATE composite SET y = y + 10 WHERE x = 'a'; DELETE FROM composite WHERE x = 'b'");
  await a.app.script("INSERT INTO composite VALUES (5, 'c', 3, x'')");
  await converged();
  assert.equal(await a.app.value("SELECT group_concat(v) FROM (SELECT v FROM composite ORDER BY v)"), "1,2,4,5");
});

test("a NULL in a key is one row, not more at each change", async ({ a, b, schema, converged }) => {
  await schema(
    "CREATE TABLE nulls(x TEXT, y TEXT, v, PRIMARY KEY (x, y)); CREATE TABLE null_text(k TEXT PRIMARY KEY, v)",
  );
  await a.app.script("INSERT INTO nulls VALUES (NULL, 'a', 1), ('a', NULL, 2); INSERT INTO null_text VALUES (NULL, 1)");
  await converged();
  await b.app.script("UPDATE nulls SET v = v + 10; UPDATE null_text SET v = 2");
  await converged();
  assert.deepEqual(await a.app.run("SELECT v FROM nulls ORDER BY v"), [[11], [12]]);
  await a.app.script("DELETE FROM nulls WHERE x IS NULL; UPDATE null_text SET k = 'known'");
  await converged();
  assert.equal(await b.app.value("SELECT count(*) FROM nulls"), 1);
  assert.deepEqual(await b.app.run("SELECT * FROM null_text"), [["known", 2]]);
});

test("a NOCASE key can change its case, also from the other node", async ({ a, b, schema, converged }) => {
  await schema("CREATE TABLE nocase(k TEXT PRIMARY KEY COLLATE NOCASE, v)");
  await a.app.script("INSERT INTO nocase VALUES ('abc', 1), ('def', 2)");
  await converged();
  await b.app.script("UPDATE nocase SET k = 'ABC' WHERE k = 'abc'");
  await converged();
  assert.deepEqual(await a.app.run("SELECT * FROM nocase ORDER BY v"), [["ABC", 1], ["def", 2]]);
  await a.app.script("REPLACE INTO nocase VALUES ('DeF', 3); DELETE FROM nocase WHERE k = 'aBC'");
  await converged();
  assert.deepEqual(await b.app.run("SELECT * FROM nocase"), [["DeF", 3]]);
});

test("a key with RTRIM collation takes other trailing spaces", async ({ a, b, schema, converged }) => {
  await schema("CREATE TABLE rtrim(k TEXT COLLATE RTRIM, n INTEGER, v, PRIMARY KEY (n, k)) WITHOUT ROWID");
  await a.app.script("INSERT INTO rtrim VALUES ('x', 1, 1), ('y ', 1, 2)");
  await converged();
  await b.app.script("UPDATE rtrim SET k = 'x   ' WHERE v = 1; REPLACE INTO rtrim VALUES ('x', 1, 3)");
  await converged();
  assert.deepEqual(await a.app.run("SELECT * FROM rtrim"), await b.app.run("SELECT * FROM rtrim"));
});

test("keys that SQLite compares as equal are one row: 1 and 1.0, 0 and -0.0", async ({ a, b, schema, converged }) => {
  await schema("CREATE TABLE equal(k PRIMARY KEY, v)");
  await a.app.run("INSERT INTO equal VALUES (1, 'int'), (?, 'minus zero'), ('1', 'text')", new Real(-0));
  await converged();
  await b.app.run("REPLACE INTO equal VALUES (?, 'real'), (0, 'zero')", new Real(1));
  await converged();
  assert.deepEqual(await a.app.run("SELECT typeof(k), v FROM equal ORDER BY v"), [
    ["real", "real"],
    ["text", "text"],
    ["integer", "zero"],
  ]);
  await a.app.script("DELETE FROM equal WHERE k = 1; DELETE FROM equal WHERE k = 0.0");
  await converged();
  assert.equal(await b.app.value("SELECT count(*) FROM equal"), 1);
});

test("keys move in a chain and in a circle inside a transaction", async ({ a, b, schema, converged }) => {
  await schema("CREATE TABLE moved(k INTEGER PRIMARY KEY, v)");
  await a.app.script("INSERT INTO moved VALUES (1, 'one'), (2, 'two'), (3, 'three')");
  await converged();
  await b.app.script(
    "BEGIN; UPDATE moved SET k = -k; UPDATE moved SET k = 1 - k WHERE k > -3; UPDATE moved SET k = 1 WHERE k = -3; COMMIT",
  );
  await converged();
  assert.deepEqual(await a.app.run("SELECT * FROM moved ORDER BY k"), [[1, "three"], [2, "one"], [3, "two"]]);
  await a.app.script(
    "UPDATE moved SET k = k + 1 WHERE k = 3; UPDATE moved SET k = k + 1 WHERE k = 2; UPDATE moved SET k = k + 1 WHERE k = 1",
  );
  await converged();
  assert.deepEqual(await b.app.run("SELECT * FROM moved ORDER BY k"), [[2, "three"], [3, "one"], [4, "two"]]);
});

test("a table whose only column is its key is replicated", async ({ a, b, schema, converged }) => {
  await schema("CREATE TABLE tags(tag TEXT PRIMARY KEY); CREATE TABLE pairs(x, y, PRIMARY KEY (x, y)) WITHOUT ROWID");
  await a.app.script("INSERT INTO tags VALUES ('a'), ('b'); INSERT INTO pairs VALUES (1, 2), (2, 1)");
  await b.app.script("INSERT INTO tags VALUES ('c')");
  await converged();
  await a.app.script(
    "UPDATE tags SET tag = 'd' WHERE tag = 'c'; DELETE FROM tags WHERE tag = 'a'; UPDATE pairs SET y = 3 WHERE x = 1",
  );
  await converged();
  assert.deepEqual(await b.app.run("SELECT tag FROM tags ORDER BY tag"), [["b"], ["d"]]);
});

test("a row deleted and made again by both nodes at once ends the same on both", async ({ a, b, schema, converged }) => {
  await schema("CREATE TABLE both(k INTEGER PRIMARY KEY, v)");
  await a.app.script(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) INSERT INTO both SELECT i, 0 FROM n",
  );
  await converged();
  const churn = (name: string) =>
    `for i in range(200):
    k = 1 + i * 7 % 50
    db.execute("BEGIN IMMEDIATE")
    db.execute("DELETE FROM both WHERE k = ?", (k,))
    if i % 3: db.execute("INSERT INTO both VALUES (?, ?)", (k, "${name}" + str(i)))
    db.execute("COMMIT")`;
  await Promise.all([a.app.python(churn("a")), b.app.python(churn("b"))]);
  await converged();
});
