/** What a node's own messages do when they come back: acknowledge, and leave the rows alone unless they must be written. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type CoreMember, corePair, withColumnOfB } from "./support/core_pair.ts";
import { settle } from "./support/core_node.ts";

function take({ node }: CoreMember, messages = Infinity): void {
  node.receive(0, messages);
  while (node.apply(0)?.kind === "applied");
}

for (const parked of [false, true]) {
  const when = parked ? "waits for it" : "comes before it";
  test(`a row that is made anew on its way has nothing of a column that is added meanwhile, and what others said of it ${when}`, async () => {
    await using pair = await withColumnOfB();
    const { a, stream } = pair;
    await settle();
    if (parked) take(a);
    a.run("DELETE FROM t; INSERT INTO t VALUES (1, 'of a')");
    a.node.publish(0);
    stream.flush();
    await settle();
    a.run("ALTER TABLE t ADD COLUMN c");
    a.node.install();
    if (parked) a.node.layParked();
    else take(a, 1);
    await pair.converged("t");
    assert.deepEqual(a.rows("SELECT * FROM t"), [[1, "of a", null]]);
  });
}

for (const parts of [1, 2]) {
  test(`a row with NULL in its key does not displace the one that displaced it, in a batch of ${parts} parts`, async () => {
    await using pair = await corePair("CREATE TABLE t(k TEXT PRIMARY KEY, u UNIQUE)");
    const { a, stream } = pair;
    await pair.converged("t");
    const before = stream.messages.length;
    a.run("INSERT INTO t VALUES (NULL, 'x')");
    if (parts > 1) a.run("INSERT INTO t VALUES ('large', zeroblob(600000))");
    a.run("INSERT OR REPLACE INTO t VALUES ('seven', 'x')");
    await pair.converged("t");
    assert.equal(stream.messages.length - before, parts);
    assert.deepEqual(a.rows("SELECT * FROM t WHERE u = 'x'"), [["seven", "x"]]);
  });
}

for (const parked of [false, true]) {
  const how = parked ? "and is decoded for a table that is parked" : "and is not decoded";
  test(`a batch that comes back with what others wrote before it is in the tables, ${how}`, async () => {
    const tables = ["t", "u"].map((name) => `CREATE TABLE ${name}(id INTEGER PRIMARY KEY, v UNIQUE)`);
    await using pair = await corePair(tables[0]!, parked ? { other: tables.join(";") } : {});
    const { a, b, stream } = pair;
    if (parked) b.run("INSERT INTO u VALUES (1, 'waits')");
    await pair.converged();
    b.run("INSERT INTO t VALUES (1, 'x'), (2, 'y'), (3, 'z')");
    b.node.publish(0);
    stream.flush();
    a.run("INSERT INTO t VALUES (2, 'x'); INSERT INTO t VALUES (4, 'z')");
    a.node.publish(0);
    stream.flush();
    a.run("UPDATE t SET v = 'w' WHERE id = 4");
    a.node.receive(0, Infinity);
    a.node.apply(0);
    const expected = [[2, "x"], [4, "w"]];
    assert.deepEqual(a.rows("SELECT * FROM t"), expected);
    await pair.converged("t");
    assert.deepEqual(a.rows("SELECT * FROM t"), expected);
    assert.equal(a.node.applier.parkedTables.length, parked ? 1 : 0);
  });
}

test("changes that wait are counted once although their transaction was undone for another table", async () => {
  const t = "CREATE TABLE t(id INTEGER PRIMARY KEY, v";
  await using pair = await corePair(`${t}); CREATE TABLE missing(id INTEGER PRIMARY KEY)`, { other: `${t} NOT NULL)` });
  const { a, b, stream } = pair;
  await pair.converged();
  a.run("BEGIN; INSERT INTO missing VALUES (1); INSERT INTO t VALUES (1, NULL); COMMIT");
  a.node.publish(0);
  stream.flush();
  take(b);
  const waiting = b.node.applier.parkedTables.map(({ table, changes }) => [table, changes]);
  assert.deepEqual(waiting.sort(), [["missing", 1], ["t", 1]]);
});

test("a displaced row is as its pending entry says, which was made without the UNIQUE column that displaced it", async () => {
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  const { a, b, stream } = pair;
  a.run("INSERT INTO t VALUES (5, 'old')");
  await pair.converged("t");
  a.run("UPDATE t SET v = 'of a'");
  for (const { app, node } of [a, b]) {
    app.exec("ALTER TABLE t ADD COLUMN w; CREATE UNIQUE INDEX t_w ON t(w)");
    node.install();
  }
  const write = async (sql: string) => {
    b.run(sql);
    b.node.publish(0);
    stream.flush();
    await settle();
    take(b);
    take(a);
  };
  await write("UPDATE t SET w = 'taken'");
  assert.deepEqual(a.rows("SELECT * FROM t"), [[5, "of a", "taken"]]);
  await write("INSERT OR REPLACE INTO t VALUES (1, 'of b', 'taken')");
  const expected = [[1, "of b", "taken"], [5, "of a", null]];
  assert.deepEqual(a.rows("SELECT * FROM t"), expected);
  await pair.converged("t");
  assert.deepEqual(a.rows("SELECT * FROM t"), expected);
});
