/** Rows that go with the row that they displace: SQLite runs a trigger for the one, and none for the other. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type CoreMember, corePair } from "./support/core_pair.ts";

interface Case {
  readonly what: string;
  readonly schema: string;
  readonly rows: string;
  readonly update: string;
  /** what is left of the table t */
  readonly left: readonly unknown[][];
}

const TREE = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, parent TEXT REFERENCES t ON DELETE CASCADE)";

const CASES: readonly Case[] = [
  {
    what: "its parent",
    schema: TREE,
    rows: "INSERT INTO t VALUES ('a', NULL), ('b', 'a'), ('c', 'b'), ('d', NULL)",
    update: "UPDATE OR REPLACE t SET id = 'a' WHERE id = 'b'",
    left: [["d", null]],
  },
  {
    what: "its grandparent",
    schema: TREE,
    rows: "INSERT INTO t VALUES ('a', NULL), ('b', 'a'), ('c', 'b'), ('d', NULL)",
    update: "UPDATE OR REPLACE t SET id = 'a', parent = 'd' WHERE id = 'c'",
    left: [["d", null]],
  },
  {
    what: "its parent, whose UNIQUE value it takes",
    schema: `CREATE TABLE t(id INTEGER PRIMARY KEY, slug TEXT, parent REFERENCES t ON DELETE CASCADE, g AS (id + 0));
      CREATE UNIQUE INDEX slugs ON t(lower(slug), g - id) WHERE slug <> ''`,
    rows: "INSERT INTO t VALUES (1, 'x', NULL), (2, 'y', 1), (3, 'z', NULL)",
    update: "UPDATE OR REPLACE t SET slug = 'X' WHERE id = 2",
    left: [[3, "z", null, 3]],
  },
  {
    what: "its parent, where its reference is to a UNIQUE column",
    schema: "CREATE TABLE t(id INTEGER PRIMARY KEY, code UNIQUE, parent REFERENCES t(code) ON DELETE CASCADE)",
    rows: "INSERT INTO t VALUES (1, 'x', NULL), (2, 'y', 'x'), (3, 'z', NULL)",
    update: "UPDATE OR REPLACE t SET code = 'x' WHERE id = 2",
    left: [[3, "z", null]],
  },
  {
    what: "its parent, with a key of two columns",
    schema: `CREATE TABLE t(a, b COLLATE NOCASE, pa, pb, PRIMARY KEY (a, b), FOREIGN KEY (pa, pb) REFERENCES t
      ON DELETE CASCADE)`,
    rows: "INSERT INTO t VALUES (1, 'x', NULL, NULL), (1, 'y', 1, 'X'), (2, NULL, 1, NULL)",
    update: "UPDATE OR REPLACE t SET b = 'X' WHERE b = 'y'",
    left: [[2, null, 1, null]],
  },
  {
    what: "its parent, which refers to it by another table",
    schema: `CREATE TABLE t(id INTEGER PRIMARY KEY, via REFERENCES o ON DELETE CASCADE);
      CREATE TABLE o(id INTEGER PRIMARY KEY, via REFERENCES t ON DELETE CASCADE)`,
    rows: "INSERT INTO t VALUES (1, NULL), (3, NULL); INSERT INTO o VALUES (1, 1); INSERT INTO t VALUES (2, 1)",
    update: "UPDATE OR REPLACE t SET id = 1 WHERE id = 2",
    left: [[3, null]],
  },
  {
    what: "its parent, as the constraint says and not the statement",
    schema: `CREATE TABLE t(id INTEGER NOT NULL PRIMARY KEY ON CONFLICT REPLACE, parent REFERENCES t ON DELETE CASCADE)
      WITHOUT ROWID`,
    rows: "INSERT INTO t VALUES (1, NULL), (2, 1), (3, NULL)",
    update: "UPDATE t SET id = 1 WHERE id = 2",
    left: [[3, null]],
  },
  {
    what: "its parent, after that changed it once more",
    schema: `CREATE TABLE t(id INTEGER PRIMARY KEY, parent REFERENCES t ON DELETE CASCADE,
      friend UNIQUE REFERENCES t ON DELETE SET NULL)`,
    rows: "INSERT INTO t VALUES (1, NULL, NULL), (2, 1, 1), (3, NULL, NULL)",
    update: "UPDATE OR REPLACE t SET id = 1 WHERE id = 2",
    left: [[3, null, null]],
  },
];

for (const { what, schema, rows, update, left } of CASES) {
  test(`a row that goes with the row it displaces, ${what}, takes it along on every node`, async () => {
    await using pair = await corePair(schema);
    const { a, b } = pair;
    a.run(`PRAGMA foreign_keys = ON; ${rows}`);
    await pair.converged("t");
    assert.notDeepEqual(b.rows("SELECT * FROM t"), left);
    a.run(update);
    assert.deepEqual(a.rows("SELECT * FROM t"), left);
    await pair.converged("t");
    assert.deepEqual(b.rows("SELECT * FROM t"), left);
    assert.deepEqual([a.node.notices, b.node.notices], [[], []]);
  });
}

test("a row in the way of an UPDATE that did not displace it stays, whatever becomes of the other row", async () => {
  await using pair = await corePair(TREE);
  const { a, b } = pair;
  a.run("PRAGMA foreign_keys = ON; INSERT INTO t VALUES ('a', NULL), ('b', 'a'), ('c', NULL)");
  await pair.converged("t");
  a.run("UPDATE OR IGNORE t SET id = 'a' WHERE id = 'b'");
  assert.throws(() => a.run("UPDATE OR FAIL t SET id = 'c' WHERE id = 'b'"), /UNIQUE constraint failed: t\.id/);
  a.run("DELETE FROM t WHERE id = 'b'");
  await pair.converged("t");
  assert.deepEqual(b.rows("SELECT * FROM t ORDER BY id"), [["a", null], ["c", null]]);
  // a row that comes back elsewhere is not deleted by what was in the way of it once
  a.run("INSERT INTO t VALUES ('b', NULL); UPDATE OR IGNORE t SET id = 'a' WHERE id = 'b'");
  await pair.converged("t");
  b.run("DELETE FROM t WHERE id = 'a'");
  await pair.converged("t");
  b.run("INSERT INTO t VALUES ('a', 'c')");
  a.run("DELETE FROM t WHERE id = 'b'");
  await pair.converged("t");
  assert.deepEqual(a.rows("SELECT * FROM t ORDER BY id"), [["a", "c"], ["c", null]]);
});

const own = (member: CoreMember) =>
  member.rows(
    "SELECT name FROM sqlite_schema WHERE name LIKE '%marmot%displace%' OR name LIKE '%marmot%gone' ORDER BY name",
  ).flat();

test("triggers that an older Marmot made are made anew at the start", async () => {
  await using pair = await corePair(TREE);
  const { a, b } = pair;
  const made = own(a);
  a.run("PRAGMA foreign_keys = ON; INSERT INTO t VALUES ('a', NULL), ('b', 'a')");
  await pair.converged("t");
  a.crash();
  a.run(`DROP TRIGGER __marmot__t_displace; DROP TRIGGER __marmot__t_displaced; DROP TRIGGER __marmot__t_gone;
    DROP TABLE __marmot__t_displaced`);
  a.start();
  assert.deepEqual(own(a), made);
  a.run("UPDATE OR REPLACE t SET id = 'a' WHERE id = 'b'");
  await pair.converged("t");
  assert.deepEqual(b.rows("SELECT * FROM t"), []);
});

test("what tables whose foreign keys lead back to them need follows their schema, and no other table has it", async () => {
  await using pair = await corePair(`CREATE TABLE t(id INTEGER PRIMARY KEY, code, via REFERENCES o ON DELETE CASCADE);
    CREATE UNIQUE INDEX codes ON t(code, abs(id)); CREATE TABLE o(id INTEGER PRIMARY KEY);
    CREATE TABLE s(id INTEGER PRIMARY KEY, parent REFERENCES s ON DELETE SET NULL)`);
  const { a, b } = pair;
  assert.deepEqual(own(a), []);
  for (const { app, node } of [a, b]) {
    app.exec("ALTER TABLE o ADD COLUMN via REFERENCES t ON DELETE CASCADE; ALTER TABLE t RENAME COLUMN code TO label");
    node.install();
    app.exec("ALTER TABLE t RENAME COLUMN label TO mark; ALTER TABLE t RENAME TO u");
    node.install();
  }
  assert.deepEqual(own(a).filter((name) => String(name).startsWith("__marmot__t")), []);
  a.run(`PRAGMA foreign_keys = ON; INSERT INTO u VALUES (1, 'x', NULL), (3, 'z', NULL); INSERT INTO o VALUES (1, 1);
    INSERT INTO u VALUES (2, 'y', 1)`);
  await pair.converged("u", "o");
  a.run("UPDATE OR REPLACE u SET id = 1 WHERE id = 2");
  await pair.converged("u", "o");
  assert.deepEqual(b.rows("SELECT * FROM u"), [[3, "z", null]]);
  for (const { app, node } of [a, b]) {
    app.exec("DROP TABLE o");
    node.install();
    assert.deepEqual(
      app.prepare("SELECT name FROM sqlite_schema WHERE name LIKE '%displace%' OR name LIKE '%gone'").all(),
      [],
    );
  }
});
