/** Migrations while changes are on their way, one step at a time. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeFrame, decodeMessage } from "../src/change_codec.ts";
import { converge, settle } from "./support/core_node.ts";
import { type CorePair, corePair, withColumnOfB } from "./support/core_pair.ts";
import { MemoryStream } from "./support/memory_stream.ts";

for (const way of ["while Marmot runs", "while Marmot is down", "and renamed again"]) {
  test(`a change on its way leaves a column alone that is added meanwhile ${way}`, async () => {
    await using pair = await withColumnOfB();
    const { a, b, stream } = pair;
    a.run("UPDATE t SET v = 'of a'");
    a.node.publish(0);
    stream.flush();
    await settle();
    if (way === "while Marmot is down") a.crash();
    a.run("ALTER TABLE t ADD COLUMN c");
    if (way === "while Marmot is down") a.start();
    else a.node.install();
    if (way === "and renamed again") {
      for (const { app, node } of [a, b]) {
        app.exec("ALTER TABLE t RENAME TO u; ALTER TABLE u RENAME COLUMN c TO d");
        node.install();
      }
    }
    // b's message alone: then a's entry is laid over what b said
    a.node.receive(0, 1);
    a.node.apply(0);
    const table = way === "and renamed again" ? "u" : "t";
    await pair.converged(table);
    assert.deepEqual(a.rows(`SELECT * FROM ${table}`), [[1, "of a", "of b"]]);
  });
}

test("a change that was made before a column was added, and is published after it, takes effect alike everywhere", async () => {
  await using pair = await withColumnOfB();
  const { a } = pair;
  a.run("UPDATE t SET v = 'of a'; ALTER TABLE t ADD COLUMN c");
  a.node.install();
  a.node.receive(0, 1);
  a.node.apply(0);
  await pair.converged("t");
});

test("an entry with the number of one that is older than a column is laid whole", async () => {
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  const { a, b, stream } = pair;
  a.run("INSERT INTO t VALUES (1, 'first')");
  for (const { app, node } of [a, b]) {
    app.exec("ALTER TABLE t ADD COLUMN c");
    node.install();
  }
  await pair.converged("t");
  b.run("UPDATE t SET c = 'of b'");
  b.node.publish(0);
  stream.flush();
  a.run("UPDATE t SET c = 'of a'");
  a.restart();
  a.node.receive(0, Infinity);
  a.node.apply(0);
  assert.deepEqual(a.rows("SELECT * FROM t"), [[1, "first", "of a"]]);
  await pair.converged("t");
  assert.deepEqual(b.rows("SELECT * FROM t"), [[1, "first", "of a"]]);
});

test("what an application wrote to a new column before Marmot looked is not taken for what the migration gave to its rows", async () => {
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  const { a, b } = pair;
  await pair.converged("t");
  a.run("ALTER TABLE t ADD COLUMN c; INSERT INTO t VALUES (1, 'of a', 5), (2, 'of a', 5)");
  a.node.install();
  b.run("INSERT INTO t VALUES (3, 'of b')");
  await pair.converged();
  b.run("ALTER TABLE t ADD COLUMN c");
  await pair.converged("t");
  assert.deepEqual(a.rows("SELECT c FROM t WHERE id = 3"), [[null]]);
});

test("a renamed table's rows stay in their streams, however often it is renamed, and as one that takes its name", async () => {
  const streams = [1, 2, 3].map((shard) => new MemoryStream(`changes-${shard}`));
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v)", { streams });
  const { a, b } = pair;
  const nodes = [a.node, b.node];
  const ids = Array.from({ length: 20 }, (_, i) => `(${i + 1})`);
  const home = new Map<string, number>();
  const published = streams.map(() => 0);
  const write = async (table: string) => {
    a.run(`REPLACE INTO "${table}"(id) VALUES ${ids}`);
    await converge(nodes, streams);
    for (const [shard, { messages }] of streams.entries()) {
      for (const { data } of messages.slice(published[shard])) {
        const { frame } = decodeMessage(data);
        for (const { changes } of frame.length > 0 ? decodeFrame(frame) : []) {
          for (const { values } of changes) {
            const id = String(values[0]);
            assert.equal(home.get(id) ?? shard, shard, `row ${id} of ${table}`);
            home.set(id, shard);
          }
        }
      }
      published[shard] = messages.length;
    }
    assert.equal(home.size, ids.length);
  };
  const migrate = (sql: string) => {
    for (const { app, node } of [a, b]) {
      app.exec(sql);
      node.install();
    }
  };
  await write("t");
  migrate("ALTER TABLE t RENAME TO u");
  await write("u");
  migrate("ALTER TABLE u RENAME TO v");
  migrate("ALTER TABLE v RENAME TO t");
  await write("t");
  migrate("ALTER TABLE t RENAME TO w; CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  await write("w");
  await write("t");
});

test("tables that take each other's names keep their streams, and a new one under an old name has its own", async () => {
  const schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE u(id INTEGER PRIMARY KEY, v)";
  await using pair = await corePair(schema);
  const { node, app } = pair.a;
  app.exec("ALTER TABLE t RENAME TO other; ALTER TABLE u RENAME TO t; ALTER TABLE other RENAME TO u");
  node.install();
  assert.deepEqual(["t", "u"].map((table) => node.installed.names.homeOf(table)), ["u", "t"]);
  app.exec("ALTER TABLE t RENAME TO v; CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  node.install();
  assert.deepEqual(["t", "u", "v"].map((table) => node.installed.names.homeOf(table)), ["t", "t", "u"]);
});

test("a table that was rebuilt keeps its streams, whether it was looked at in between or not", async () => {
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  const rebuild = [
    "CREATE TABLE made(id INTEGER PRIMARY KEY, v, w)",
    "INSERT INTO made SELECT id, v, 1 FROM t",
    "DROP TABLE t",
    "ALTER TABLE made RENAME TO t",
  ];
  for (const step of rebuild) {
    pair.a.run(step);
    pair.a.node.install();
    pair.b.run(step);
  }
  pair.b.node.install();
  assert.deepEqual([pair.a, pair.b].map(({ node }) => node.installed.names.homeOf("t")), ["t", "t"]);
});

test("an entry that takes the number of one that a new key made useless is published", async () => {
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  const { a, b, stream } = pair;
  a.run("INSERT INTO t VALUES (1, 'a'), (2, 'b')");
  await pair.converged("t");
  a.run("DELETE FROM t WHERE id = 2");
  a.node.publish(0);
  stream.flush();
  await settle();
  const rebuild = `BEGIN; CREATE TABLE new__t(uid TEXT PRIMARY KEY NOT NULL, id INTEGER, v);
      INSERT INTO new__t SELECT 'u' || id, id, v FROM t; DROP TABLE t; ALTER TABLE new__t RENAME TO t; COMMIT`;
  a.run(rebuild);
  a.node.install();
  a.run("INSERT INTO t VALUES ('u3', 3, 'c')");
  b.node.receive(0, Infinity);
  b.node.apply(0);
  b.run(rebuild);
  await pair.converged("t");
  assert.deepEqual(b.rows("SELECT * FROM t ORDER BY 1"), [["u1", 1, "a"], ["u3", 3, "c"]]);
});

const FILL = "AFTER INSERT ON t BEGIN UPDATE t SET s = 'filled' WHERE id = NEW.id; END";

test("what a trigger fills arrives, made after its table was renamed and before Marmot saw that", async () => {
  await using pair = await corePair("CREATE TABLE before(id INTEGER PRIMARY KEY, v, s)");
  const { a, b, stream } = pair;
  await pair.converged("before");
  a.run("INSERT INTO before VALUES (1, 'on its way', NULL)");
  a.node.publish(0);
  for (const { app } of [a, b]) app.exec(`ALTER TABLE before RENAME TO t; CREATE TRIGGER fill ${FILL}`);
  a.run("INSERT INTO t VALUES (2, 'new', NULL)");
  a.node.publish(0);
  stream.flush();
  await pair.converged("t");
  assert.deepEqual(b.rows("SELECT * FROM t"), [[1, "on its way", null], [2, "new", "filled"]]);
});

test("what a trigger fills arrives, made anew after its table was rebuilt through a copy that Marmot had seen", async () => {
  await using pair = await corePair(`CREATE TABLE t(id INTEGER PRIMARY KEY, v, s); CREATE TRIGGER fill ${FILL}`);
  const { a, b } = pair;
  a.run("INSERT INTO t VALUES (1, 'a', NULL)");
  await pair.converged("t");
  for (const { app } of [a, b]) app.exec("CREATE TABLE copy_of_t(id INTEGER PRIMARY KEY, v, s)");
  await pair.converged();
  for (const { app } of [a, b]) {
    app.exec(`BEGIN; INSERT INTO copy_of_t SELECT * FROM t; DROP TABLE t; ALTER TABLE copy_of_t RENAME TO t;
      CREATE TRIGGER fill ${FILL}; COMMIT`);
  }
  a.run("INSERT INTO t VALUES (2, 'b', NULL)");
  await pair.converged("t");
  assert.deepEqual(b.rows("SELECT * FROM t"), [[1, "a", "filled"], [2, "b", "filled"]]);
});

test("a transaction that is pending stays whole when one of its tables is renamed", async () => {
  const tables = ["t", "other"];
  await using pair = await corePair(tables.map((name) => `CREATE TABLE ${name}(id INTEGER PRIMARY KEY)`).join(";"));
  const { a, b, stream } = pair;
  await pair.converged();
  // more than what is joined to one batch
  const rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) SELECT i FROM n";
  a.run(`BEGIN; ${tables.map((name) => `INSERT INTO ${name} ${rows}`).join("; ")}; COMMIT`);
  a.node.capture.scan();
  const before = stream.messages.length;
  for (const { app } of [a, b]) app.exec("ALTER TABLE t RENAME TO u");
  await pair.converged();
  assert.deepEqual(b.rows("SELECT count(*) FROM u"), [[300]]);
  const frames = stream.messages.slice(before).map(({ data }) => decodeMessage(data).frame);
  const batches = frames.filter(({ length }) => length > 0).map((frame) =>
    decodeFrame(frame).map(({ table }) => table)
  );
  assert.deepEqual(batches.map((names) => names.sort()), [["other", "u"]]);
});

/** a's row is on its way back to it, and b's newer one behind it. */
async function overwritten(): Promise<CorePair> {
  const pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v, w)");
  const { a, b, stream } = pair;
  await pair.converged("t");
  for (
    const [sql, { app, node }] of [["INSERT INTO t VALUES (1, 'old', 0)", a], ["UPDATE t SET v = 'new'", b]] as const
  ) {
    app.exec(sql);
    node.publish(0);
    stream.flush();
    await settle();
    b.node.receive(0, Infinity);
    b.node.apply(0);
  }
  return pair;
}

const marking = (table: string) =>
  `CREATE TRIGGER w AFTER INSERT ON ${table} BEGIN UPDATE ${table} SET w = 1 WHERE id = NEW.id; END`;

test("a trigger that is made right after a rename does not let what is on its way be published twice", async () => {
  await using pair = await overwritten();
  const { a, b } = pair;
  for (const sql of ["ALTER TABLE t RENAME TO u", marking("u")]) {
    for (const { app, node } of [a, b]) {
      app.exec(sql);
      node.install();
    }
  }
  await pair.converged("u");
  assert.deepEqual(a.rows("SELECT v FROM u"), [["new"]]);
});

test("a trigger that is made after a crash does not let what is on its way be published twice", async () => {
  await using pair = await overwritten();
  const { a, b } = pair;
  a.crash();
  for (const { app } of [a, b]) app.exec(marking("t"));
  a.run("INSERT INTO t VALUES (2, 'of a', 0), (3, 'of a', 0); DELETE FROM t WHERE id = 3");
  a.start();
  await pair.converged("t");
  assert.deepEqual(a.rows("SELECT * FROM t"), [[1, "new", 0], [2, "of a", 1]]);
});
