import assert from "node:assert/strict";
import { clusterTests, until } from "../support/cluster.ts";
import { dropColumn } from "../support/drop_column.ts";

const test = clusterTests();

/** Writes of an application that goes on while its schema changes; none of them may fail. */
const writing = (table: string, rows: number, start: number) =>
  `for i in range(${rows}):
    db.execute("INSERT INTO ${table}(id, v) VALUES (?, ?)", (${start} + i, "row" + str(i)))
    if i % 3 == 0: db.execute("UPDATE ${table} SET v = v || '!' WHERE id = ?", (${start} + i,))
    time.sleep(0.001)`;

test("a column added on all nodes while they write is captured from its first value on", async ({ a, b, nodes, schema, converged }) => {
  await schema("CREATE TABLE grown(id INTEGER PRIMARY KEY, v)");
  await a.app.script("INSERT INTO grown VALUES (1, 'x'), (2, 'y')");
  await converged();
  for (const { app } of nodes) await app.script("ALTER TABLE grown ADD COLUMN extra TEXT DEFAULT 'none'");
  await a.app.script("UPDATE grown SET extra = 'of a' WHERE id = 1; INSERT INTO grown VALUES (3, 'z', 'new')");
  await b.app.script("UPDATE grown SET extra = 'of b' WHERE id = 2");
  await converged();
  assert.deepEqual(await b.app.run("SELECT * FROM grown ORDER BY id"), [[1, "x", "of a"], [2, "y", "of b"], [
    3,
    "z",
    "new",
  ]]);
});

test("changes of a column that a node lacks wait for it, and the other tables go on", async ({ a, b, schema, converged }) => {
  await schema("CREATE TABLE early(id INTEGER PRIMARY KEY, v); CREATE TABLE beside_early(id INTEGER PRIMARY KEY)");
  await a.app.script("INSERT INTO early VALUES (1, 'x')");
  await converged();
  await a.app.script(
    "ALTER TABLE early ADD COLUMN extra; UPDATE early SET extra = 'of a'; INSERT INTO early VALUES (2, 'y', 2)",
  );
  await a.app.script("INSERT INTO beside_early VALUES (1)");
  await b.app.script("INSERT INTO early VALUES (3, 'of b')");
  await until("the other table goes on", async () => await b.app.value("SELECT count(*) FROM beside_early") === 1, {
    nodes: [b],
  });
  await until("the table is parked", async () => (await b.app.facts()).parked > 0, { nodes: [b] });
  await until("b's row arrives", async () => await a.app.value("SELECT count(*) FROM early") === 3, { nodes: [a] });
  await b.app.script("ALTER TABLE early ADD COLUMN extra");
  await converged();
  assert.deepEqual(await b.app.run("SELECT * FROM early ORDER BY id"), [[1, "x", "of a"], [2, "y", 2], [
    3,
    "of b",
    null,
  ]]);
});

test("a table made on one node waits for the other's, rows that it had included", async ({ a, b, converged }) => {
  await a.app.script(
    `BEGIN; CREATE TABLE later(id INTEGER PRIMARY KEY, v); INSERT INTO later VALUES (1, 'with the table'); COMMIT;
    INSERT INTO later VALUES (2, 'after it')`,
  );
  await until("its changes are parked", async () => (await b.app.facts()).parked > 0, { nodes: [b] });
  await b.app.script("CREATE TABLE later(id INTEGER PRIMARY KEY, v)");
  await converged();
  assert.equal(await b.app.value("SELECT count(*) FROM later"), 2);
});

test("tables and columns made while Marmot was down are captured from then on", async ({ a, b, nodes, schema, converged }) => {
  await schema("CREATE TABLE known(id INTEGER PRIMARY KEY, v)");
  await a.app.script("INSERT INTO known VALUES (1, 'x')");
  await converged();
  for (const node of nodes) assert.equal(await node.stop(), 0);
  for (const { app } of nodes) {
    await app.script("ALTER TABLE known ADD COLUMN extra; CREATE TABLE made_offline(id INTEGER PRIMARY KEY, v)");
  }
  await a.app.script("UPDATE known SET extra = 'offline' WHERE id = 1; INSERT INTO made_offline VALUES (1, 'a')");
  await b.app.script("INSERT INTO known VALUES (2, 'y', 'offline too'); INSERT INTO made_offline VALUES (2, 'b')");
  for (const node of nodes) await node.start();
  await converged();
  assert.deepEqual(await b.app.run("SELECT * FROM known ORDER BY id"), [[1, "x", "offline"], [2, "y", "offline too"]]);
  assert.equal(await a.app.value("SELECT count(*) FROM made_offline"), 2);
});

test("a renamed column goes on under its new name, also while the other node still has the old one", async (cluster) => {
  const { a, b, schema, converged } = cluster;
  await schema("CREATE TABLE renaming(id INTEGER PRIMARY KEY, was TEXT, other)");
  await a.app.script("INSERT INTO renaming VALUES (1, 'x', 1)");
  await converged();
  await a.app.script(
    `ALTER TABLE renaming RENAME COLUMN was TO now; INSERT INTO renaming VALUES (2, 'y', 2); UPDATE renaming SET now = 'xx' WHERE id = 1`,
  );
  await b.app.script("INSERT INTO renaming VALUES (3, 'of b', 3)");
  await until(
    "the old name arrives under the new one",
    async () => await a.app.value("SELECT now FROM renaming WHERE id = 3") === "of b",
    { nodes: [a, b] },
  );
  await b.app.script("ALTER TABLE renaming RENAME COLUMN was TO now");
  await converged();
  assert.deepEqual(await b.app.run("SELECT * FROM renaming ORDER BY id"), [[1, "xx", 1], [2, "y", 2], [3, "of b", 3]]);
});

test("a renamed table goes on under its new name", async ({ a, b, schema, converged, captured }) => {
  await schema("CREATE TABLE former(id INTEGER PRIMARY KEY, v)");
  await a.app.script("INSERT INTO former VALUES (1, 'x')");
  await converged();
  await a.app.script("ALTER TABLE former RENAME TO present; INSERT INTO present VALUES (2, 'y')");
  await b.app.script("INSERT INTO former VALUES (3, 'of b')");
  await until("b's row arrives", async () => await a.app.value("SELECT count(*) FROM present WHERE id = 3") === 1, {
    nodes: [a, b],
  });
  await b.app.script("ALTER TABLE former RENAME TO present");
  await captured(["present"]);
  await a.app.script("INSERT INTO present VALUES (10, 'a')");
  await b.app.script("INSERT INTO present VALUES (11, 'b')");
  await converged();
  assert.equal(await b.app.value("SELECT count(*) FROM present"), 5);
  for (const { log } of [a, b]) assert.doesNotMatch(log, /captured again.*present/);
});

test("a dropped table ends quietly, and its name can be used again", async ({ a, b, nodes, schema, converged, captured }) => {
  await schema("CREATE TABLE dropped(id INTEGER PRIMARY KEY, v)");
  await a.app.script("INSERT INTO dropped VALUES (1, 'x')");
  await converged();
  await a.app.script("INSERT INTO dropped VALUES (2, 'y'); DROP TABLE dropped");
  await b.app.script("INSERT INTO dropped VALUES (3, 'z')");
  await until("b's change was published", async () => Object.keys((await b.app.facts()).pending).length === 0, {
    nodes: [a, b],
  });
  await b.app.script("DROP TABLE dropped");
  await converged();
  for (const { app } of nodes) await app.script("CREATE TABLE dropped(name TEXT PRIMARY KEY, w)");
  await captured(["dropped"]);
  await b.app.script("INSERT INTO dropped VALUES ('again', 1)");
  await converged();
  assert.equal(await a.app.value("SELECT count(*) FROM dropped"), 1);
});

test("a dropped column is left out of changes that still carry it", async ({ a, b, nodes, schema, converged, captured }) => {
  await schema("CREATE TABLE shrunk(id INTEGER PRIMARY KEY, v, gone)");
  await a.app.script("INSERT INTO shrunk VALUES (1, 'x', 'old')");
  await converged();
  await assert.rejects(a.app.script("ALTER TABLE shrunk DROP COLUMN gone"), /__marmot__shrunk/);
  // SQLite refuses it as long as a trigger names the column, so the application takes the triggers away.
  const drop = dropColumn("shrunk", "gone");
  await a.app.script(drop);
  await b.app.script("INSERT INTO shrunk VALUES (2, 'y', 'still')");
  await until("b's row arrives", async () => await a.app.value("SELECT count(*) FROM shrunk") === 2, { nodes });
  await b.app.script(drop);
  await captured(["shrunk"]);
  await a.app.script("UPDATE shrunk SET v = 'new'");
  await converged();
});

test("dropped triggers are put back, and the gap is told", async ({ a, b, schema, converged, captured }) => {
  await schema("CREATE TABLE untriggered(id INTEGER PRIMARY KEY, v)");
  await converged();
  const told = a.log.length;
  await a.app.script(
    "DROP TRIGGER __marmot__untriggered_update; DROP TRIGGER __marmot__untriggered_delete; DROP TRIGGER __marmot__untriggered_key; DROP TRIGGER __marmot__untriggered_insert",
  );
  await captured(["untriggered"]);
  await until("the log names it", () => Promise.resolve(/untriggered/.test(a.log.slice(told))), { nodes: [a] });
  await a.app.script("INSERT INTO untriggered VALUES (1, 'x')");
  await converged();
  assert.equal(await b.app.value("SELECT count(*) FROM untriggered"), 1);
});

test("constraints and indexes added on all nodes are followed", async ({ a, b, nodes, schema, converged, apart }) => {
  await schema("CREATE TABLE indexed(id INTEGER PRIMARY KEY, name TEXT)");
  await a.app.script("INSERT INTO indexed VALUES (1, 'x'), (2, 'y')");
  await converged();
  for (const { app } of nodes) await app.script("CREATE UNIQUE INDEX indexed_name ON indexed(name)");
  await b.app.script("INSERT OR REPLACE INTO indexed VALUES (3, 'x')");
  await converged();
  await apart(async () => {
    await a.app.script("INSERT INTO indexed VALUES (10, 'clash')");
    await b.app.script("INSERT INTO indexed VALUES (11, 'clash')");
  });
  await converged();
  for (const { app } of nodes) await app.script("DROP INDEX indexed_name");
  await a.app.script("INSERT INTO indexed VALUES (20, 'x'), (21, 'x')");
  await converged();
});

test("an application that writes while its tables change never fails", async (cluster) => {
  const { a, b, nodes, schema, captured, converged } = cluster;
  await schema("CREATE TABLE busy(id INTEGER PRIMARY KEY, v)");
  const loops = [a.app.python(writing("busy", 400, 0)), b.app.python(writing("busy", 400, 10_000))];
  for (const node of nodes) {
    await using other = await node.anotherApp();
    for (let i = 0; i < 5; i++) {
      await other.script(
        `ALTER TABLE busy ADD COLUMN extra_${i} DEFAULT ${i}; CREATE TABLE busy_${i}(id INTEGER PRIMARY KEY)`,
      );
    }
    // a column that comes and goes before Marmot has seen it is one that this node never had
    await captured(["busy_4"], [node]);
    await other.script("CREATE INDEX busy_v ON busy(v); ALTER TABLE busy RENAME COLUMN extra_0 TO renamed_0");
  }
  await Promise.all(loops);
  await converged();
  assert.equal(await a.app.value("SELECT count(*) FROM busy"), 800);
});

test("VACUUM and changed pragmas leave everything in place", async ({ a, b, schema, converged }) => {
  await schema("CREATE TABLE vacuumed(id TEXT PRIMARY KEY, v)");
  await a.app.script("INSERT INTO vacuumed VALUES ('a', randomblob(100000)), ('b', 1)");
  await converged();
  await a.app.script(
    "DELETE FROM vacuumed WHERE id = 'a'; VACUUM; PRAGMA user_version = 7; PRAGMA wal_checkpoint(TRUNCATE); ANALYZE",
  );
  await b.app.script("INSERT INTO vacuumed VALUES ('c', 2); REINDEX");
  await converged();
});
