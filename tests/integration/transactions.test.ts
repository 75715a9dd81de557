import assert from "node:assert/strict";
import { clusterTests, type TestNode } from "../support/cluster.ts";

const TRANSACTIONS = 2_000;
const ROWS_EACH = 100;
const TRANSFERS = 1_000;
const LARGE_TRANSACTION_ROWS = 30_000;
const READ_EVERY_S = 0.001;

const test = clusterTests();

/** Another process reads at a node, before `write` and until `until` holds, then tells every different result it saw. */
async function watched(node: TestNode, query: string, until: string, write: () => Promise<unknown>): Promise<unknown> {
  await using reader = await node.anotherApp();
  const [before] = await reader.run(query);
  const seen = reader.python(`seen = {tuple(${JSON.stringify(before?.map(Number))})}
deadline = time.time() + 100
while time.time() < deadline:
    db.execute("BEGIN")
    seen.add(db.execute("""${query}""").fetchone())
    done = db.execute("""${until}""").fetchone()[0]
    db.execute("COMMIT")
    if done: break
    time.sleep(${READ_EVERY_S})
result = sorted(seen)`);
  await write();
  return await seen;
}

test("200,000 rows in transactions of 100 arrive whole and equal", async ({ a, b, nodes, schema, converged }) => {
  await schema("CREATE TABLE many(id INTEGER PRIMARY KEY, t INTEGER, name TEXT, price REAL, bytes BLOB)");
  const write = () =>
    a.app.python(`for t in range(${TRANSACTIONS}):
    db.execute("BEGIN IMMEDIATE")
    db.executemany("INSERT INTO many VALUES (?, ?, ?, ?, ?)", [(t * ${ROWS_EACH} + i, t, "name " + str(i), i / 7, b"0123456789") for i in range(${ROWS_EACH})])
    db.execute("COMMIT")`);
  // Ids grow with the transactions, so a part of one would end at another number.
  const last = `SELECT coalesce(max(id) % ${ROWS_EACH}, ${ROWS_EACH - 1}) FROM many`;
  const everything = `SELECT max(id) = ${TRANSACTIONS * ROWS_EACH - 1} FROM many`;
  assert.deepEqual(await watched(b, last, everything, write), [[ROWS_EACH - 1]]);
  await converged();
  assert.equal(await b.app.value("SELECT count(*) FROM many"), TRANSACTIONS * ROWS_EACH);
  // The other tests need not compare them again.
  for (const { app } of nodes) await app.script("DROP TABLE many");
});

test("a transfer between two rows is never seen half done", async ({ a, b, schema, converged }) => {
  await schema(
    "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER, transfers INTEGER DEFAULT 0); CREATE TABLE journal(id INTEGER PRIMARY KEY, amount INTEGER)",
  );
  await a.app.script("INSERT INTO account(id, balance) VALUES (1, 1000), (2, 1000)");
  await converged();
  const transfer = () =>
    a.app.python(`for i in range(${TRANSFERS}):
    amount = i * 37 % 100
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE account SET balance = balance - ?, transfers = transfers + 1 WHERE id = 1", (amount,))
    db.execute("INSERT INTO journal VALUES (?, ?)", (i, amount))
    db.execute("UPDATE account SET balance = balance + ?, transfers = transfers + 1 WHERE id = 2", (amount,))
    db.execute("COMMIT")
    time.sleep(0.001)`);
  const sums = `SELECT sum(balance), max(transfers) - min(transfers),
    (SELECT balance FROM account WHERE id = 2) - 1000 - (SELECT coalesce(sum(amount), 0) FROM journal) FROM account`;
  const done = `SELECT min(transfers) = ${TRANSFERS} FROM account`;
  assert.deepEqual(await watched(b, sums, done, transfer), [[2000, 0, 0]]);
  await converged();
});

test("transfers made on both nodes at once are never seen half done", async ({ a, b, schema, converged }) => {
  await schema("CREATE TABLE purse(id TEXT PRIMARY KEY, n INTEGER)");
  await a.app.script("INSERT INTO purse VALUES ('a1', 500), ('a2', 500), ('b1', 500), ('b2', 500)");
  await converged();
  const transfer = (name: string) =>
    `for i in range(300):
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE purse SET n = n - 1 WHERE id = '${name}1'")
    db.execute("UPDATE purse SET n = n + 1 WHERE id = '${name}2'")
    db.execute("COMMIT")
    time.sleep(0.002)`;
  const sum = "SELECT sum(n) FROM purse";
  const done = (name: string) => `SELECT n = 800 FROM purse WHERE id = '${name}2'`;
  const seen = await Promise.all([
    watched(a, sum, done("b"), () => a.app.python(transfer("a"))),
    watched(b, sum, done("a"), () => b.app.python(transfer("b"))),
  ]);
  assert.deepEqual(seen, [[[2000]], [[2000]]]);
  await converged();
});

test("a transaction of 30,000 rows over two tables is visible at once", async ({ a, b, schema, converged }) => {
  await schema("CREATE TABLE one(id INTEGER PRIMARY KEY, v); CREATE TABLE two(id INTEGER PRIMARY KEY, v UNIQUE)");
  // Random bytes can't be compressed: the batch takes many messages.
  const write = () =>
    a.app.python(`db.execute("BEGIN IMMEDIATE")
for i in range(${LARGE_TRANSACTION_ROWS} // 2):
    db.execute("INSERT INTO one VALUES (?, randomblob(300))", (i,))
    db.execute("INSERT INTO two VALUES (?, randomblob(50))", (i,))
db.execute("COMMIT")`);
  const counts = "SELECT (SELECT count(*) FROM one) + (SELECT count(*) FROM two)";
  const done = `SELECT count(*) = ${LARGE_TRANSACTION_ROWS / 2} FROM two`;
  assert.deepEqual(await watched(b, counts, done, write), [[0], [LARGE_TRANSACTION_ROWS]]);
  await converged();
  const update = () => a.app.script("BEGIN IMMEDIATE; UPDATE one SET v = 'done'; DELETE FROM two; COMMIT");
  const kinds = "SELECT (SELECT count(DISTINCT typeof(v)) FROM one), (SELECT count(*) > 0 FROM two)";
  assert.deepEqual(await watched(b, kinds, "SELECT count(*) = 0 FROM two", update), [[1, 0], [1, 1]]);
  await converged();
});

test("a transaction that is rolled back, and savepoints that are, leave nothing", async ({ a, b, schema, converged }) => {
  await schema("CREATE TABLE undone(id INTEGER PRIMARY KEY, v)");
  await a.app.script(`BEGIN; INSERT INTO undone VALUES (1, 'x'); ROLLBACK;
    BEGIN; INSERT INTO undone VALUES (2, 'kept'); SAVEPOINT s; INSERT INTO undone VALUES (3, 'x'); UPDATE undone SET v = 'x'; ROLLBACK TO s; COMMIT;`);
  await converged();
  assert.deepEqual(await b.app.run("SELECT * FROM undone"), [[2, "kept"]]);
});
