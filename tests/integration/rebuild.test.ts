import assert from "node:assert/strict";
import { clusterTests, until } from "../support/cluster.ts";

const test = clusterTests();

/** The ways in which frameworks alter a column: a new table, a copy of the rows, the old one dropped, its name taken over. */
const WAYS: readonly [way: string, steps: (table: string) => string[]][] = [
  [
    "as Django does it",
    (
      t,
    ) => [
      `CREATE TABLE "new__${t}"(id INTEGER PRIMARY KEY, v TEXT NOT NULL DEFAULT '', extra)`,
      `INSERT INTO "new__${t}"(id, v) SELECT id, coalesce(v, '') FROM ${t}`,
      `DROP TABLE ${t}`,
      `ALTER TABLE "new__${t}" RENAME TO ${t}`,
    ],
  ],
  [
    "as SQLite's documentation does it",
    (
      t,
    ) => [
      `CREATE TABLE ${t}_next(id INTEGER PRIMARY KEY, v TEXT NOT NULL DEFAULT '', extra)`,
      `INSERT INTO ${t}_next(id, v) SELECT id, coalesce(v, '') FROM ${t}`,
      `DROP TABLE ${t}`,
      `ALTER TABLE ${t}_next RENAME TO ${t}`,
    ],
  ],
  [
    "by moving the old table away",
    (
      t,
    ) => [
      `ALTER TABLE ${t} RENAME TO ${t}_old`,
      `CREATE TABLE ${t}(id INTEGER PRIMARY KEY, v TEXT NOT NULL DEFAULT '', extra)`,
      `INSERT INTO ${t}(id, v) SELECT id, coalesce(v, '') FROM ${t}_old`,
      `DROP TABLE ${t}_old`,
    ],
  ],
];

/**
 * A table that only one node's Marmot sees before it is renamed is one that the other never had, and what was written to
 * it is parked there; one that both see is replicated, so that the second node's copy meets the rows of the first. So
 * nobody sees the steps, or all see them where the table in between has a name that is known.
 */
const AT_ONCE = "several transactions at once";
const ONE_BY_ONE = "several transactions that Marmot sees one by one";
const KINDS = ["one transaction", AT_ONCE, ONE_BY_ONE, "one transaction while Marmot is down"];

for (const [place, [way, steps]] of WAYS.entries()) {
  for (const kind of KINDS) {
    if (kind === ONE_BY_ONE && way.startsWith("as SQLite")) continue;
    const table = `t${place}_${kind.replaceAll(" ", "_").slice(0, 30)}`;
    test(`a table rebuilt ${way} in ${kind} is replicated again`, async ({ a, b, nodes, schema, converged, captured, settled }) => {
      await schema(`CREATE TABLE ${table}(id INTEGER PRIMARY KEY, v TEXT)`);
      await a.app.script(`INSERT INTO ${table} VALUES (1, 'x'), (2, NULL), (3, 'z')`);
      await converged();
      const sql = kind.startsWith("one") ? [`BEGIN IMMEDIATE; ${steps(table).join("; ")}; COMMIT`] : steps(table);
      const down = kind.endsWith("down");
      for (const node of nodes) {
        if (down) await node.stop();
        if (kind === AT_ONCE) node.freeze();
        for (const statement of sql) {
          await node.app.script(statement);
          const [, made] = /^CREATE TABLE (\w+)/.exec(statement) ?? [];
          if (kind === ONE_BY_ONE && made !== undefined) await captured([made], [node]);
        }
        if (kind === AT_ONCE) node.thaw();
        if (down) await node.start();
      }
      await captured([table]);
      // The copies of the rows were writes too, where the new table was already captured: what is published last wins.
      await settled();
      await a.app.script(`INSERT INTO ${table} VALUES (4, 'of a', 1); UPDATE ${table} SET extra = 'a' WHERE id = 1`);
      await b.app.script(`DELETE FROM ${table} WHERE id = 3; UPDATE ${table} SET v = 'of b' WHERE id = 2`);
      await converged();
      assert.deepEqual(await a.app.run(`SELECT * FROM ${table} ORDER BY id`), [[1, "x", "a"], [2, "of b", null], [
        4,
        "of a",
        1,
      ]]);
    });
  }
}

test("changes made on one node while the other rebuilds the table arrive after it", async ({ a, b, nodes, schema, converged, captured }) => {
  await schema("CREATE TABLE uneven(id INTEGER PRIMARY KEY, v)");
  await a.app.script("INSERT INTO uneven VALUES (1, 'x'), (2, 'y')");
  await converged();
  const rebuild = `BEGIN IMMEDIATE; CREATE TABLE uneven_2(id INTEGER PRIMARY KEY, v, extra DEFAULT 'made');
    INSERT INTO uneven_2(id, v) SELECT id, v FROM uneven; DROP TABLE uneven; ALTER TABLE uneven_2 RENAME TO uneven; COMMIT`;
  await a.app.script(rebuild);
  await captured(["uneven"], [a]);
  await a.app.script("INSERT INTO uneven(id, v) VALUES (3, 'of a'); UPDATE uneven SET extra = 'set' WHERE id = 1");
  await b.app.script("UPDATE uneven SET v = 'of b' WHERE id = 2");
  await until("b's change arrives", async () => await a.app.value("SELECT v FROM uneven WHERE id = 2") === "of b", {
    nodes,
  });
  await b.app.script(rebuild);
  await converged();
  assert.deepEqual(await b.app.run("SELECT * FROM uneven ORDER BY id"), [[1, "x", "set"], [2, "of b", "made"], [
    3,
    "of a",
    "made",
  ]]);
});

test("a column that gets another type on one node after the other keeps what both write meanwhile", async (cluster) => {
  const { a, b, nodes, schema, converged, captured } = cluster;
  await schema("CREATE TABLE retyped(id INTEGER PRIMARY KEY, code INTEGER)");
  await a.app.script("INSERT INTO retyped VALUES (1, 1), (2, 2), (3, 3)");
  await converged();
  const rebuild = `BEGIN IMMEDIATE; CREATE TABLE new__retyped(id INTEGER PRIMARY KEY, code TEXT);
    INSERT INTO new__retyped SELECT * FROM retyped; DROP TABLE retyped; ALTER TABLE new__retyped RENAME TO retyped; COMMIT`;
  await a.app.script(rebuild);
  await captured(["retyped"], [a]);
  await b.app.script("UPDATE retyped SET code = '0020' WHERE id = 2; INSERT INTO retyped VALUES (5, '0050')");
  await until("b's changes arrive", async () => await a.app.value("SELECT code FROM retyped WHERE id = 5") === "50", {
    nodes,
  });
  await a.app.script("UPDATE retyped SET code = '007' WHERE id = 1; INSERT INTO retyped VALUES (4, '1e3')");
  await until("a's are parked at b", async () => (await b.app.facts()).parked > 0, { nodes });
  await b.app.script("UPDATE retyped SET code = '0030' WHERE id = 3");
  await b.app.script(rebuild);
  await converged();
  assert.deepEqual(await b.app.run("SELECT * FROM retyped ORDER BY id"), [
    [1, "007"],
    [2, "20"],
    [3, "30"],
    [4, "1e3"],
    [5, "50"],
  ]);
});

test("a rebuild that changes the key or a unique constraint waits until all nodes have it", async (cluster) => {
  const { a, b, nodes, schema, converged, captured } = cluster;
  await schema("CREATE TABLE rekeyed(id INTEGER PRIMARY KEY, name TEXT)");
  await a.app.script("INSERT INTO rekeyed VALUES (1, 'x'), (2, 'y')");
  await converged();
  const rebuild =
    `BEGIN IMMEDIATE; CREATE TABLE rekeyed_2(id INTEGER, name TEXT PRIMARY KEY); INSERT INTO rekeyed_2 SELECT * FROM rekeyed;
    DROP TABLE rekeyed; ALTER TABLE rekeyed_2 RENAME TO rekeyed; COMMIT`;
  await a.app.script(rebuild);
  await captured(["rekeyed"], [a]);
  await a.app.script("UPDATE rekeyed SET id = 10 WHERE name = 'x'; INSERT INTO rekeyed VALUES (1, 'z')");
  await until("it is parked at b", async () => (await b.app.facts()).parked > 0, { nodes });
  await b.app.script(rebuild);
  await captured(["rekeyed"]);
  await b.app.script("DELETE FROM rekeyed WHERE name = 'y'");
  await converged();
  assert.deepEqual(await b.app.run("SELECT * FROM rekeyed ORDER BY name"), [[10, "x"], [1, "z"]]);
});

test("triggers and indexes of the application that are made again with the table still take effect once", async (cluster) => {
  const { a, b, nodes, schema, converged, captured } = cluster;
  const trigger =
    "CREATE TRIGGER styled_i AFTER INSERT ON styled BEGIN UPDATE styled SET slug = lower(NEW.v) WHERE id = NEW.id; END";
  await schema(`BEGIN; CREATE TABLE styled(id INTEGER PRIMARY KEY, v TEXT, slug TEXT); ${trigger}; COMMIT`);
  await a.app.script("INSERT INTO styled(v) VALUES ('One')");
  await converged();
  for (const { app } of nodes) {
    await app.script(
      `BEGIN IMMEDIATE; CREATE TABLE styled_2(id INTEGER PRIMARY KEY, v TEXT, slug TEXT UNIQUE); INSERT INTO styled_2 SELECT * FROM styled;
      DROP TABLE styled; ALTER TABLE styled_2 RENAME TO styled; ${trigger}; COMMIT`,
    );
  }
  await captured(["styled"]);
  await b.app.script("INSERT INTO styled(v) VALUES ('Two')");
  await converged();
  assert.equal(await a.app.value("SELECT slug FROM styled WHERE v = 'Two'"), "two");
});
