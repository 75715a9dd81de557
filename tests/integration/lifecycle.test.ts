import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { App } from "../support/app.ts";
import { type Cluster, clusterTests, ownClusterTests, type TestNode, until } from "../support/cluster.ts";
import { dropColumn } from "../support/drop_column.ts";
import { runProgram, startProgram } from "../support/process.ts";
import { marmotCommand } from "../support/runtime.ts";
import { unhurried } from "../support/slowdown.ts";

const STOP_LIMIT_MS = 2_000;
const LOCK_HELD_S = 4;
const CONFLICT = 5;
const REFUSED = 6;
const PREPARE =
  "PRAGMA journal_mode = WAL; CREATE TABLE t(id TEXT PRIMARY KEY, v); CREATE TABLE __user(id INTEGER PRIMARY KEY)";

const calm = clusterTests({ prepare: PREPARE });
const test = ownClusterTests({ prepare: PREPARE });

const marmot = (node: TestNode, ...args: string[]) => runProgram([...marmotCommand(), ...args, "--db-path", node.path]);

interface Status {
  readonly running: boolean;
  readonly node: string;
  readonly connected: boolean;
  readonly shards: readonly { stream: string; cursor: number; end: number }[];
  readonly pending: readonly { table: string; entries: number }[];
  readonly parked: readonly { table: string }[];
  readonly excluded: readonly { name: string; reason: string }[];
}

async function status(node: TestNode): Promise<Status> {
  const result = await marmot(node, "status", "--json");
  assert.equal(result.code, 0, result.stderr);
  return JSON.parse(result.stdout);
}

test("SIGTERM ends Marmot within 2 seconds, with what was captured published", async ({ a, b, converged }) => {
  // Two nodes that have not joined yet are equal as well; one whose row came back is ready to publish.
  await a.app.script("INSERT INTO t VALUES ('first', 1)");
  await converged();
  const took = await unhurried(async () => {
    await a.app.script(
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO t SELECT i, 'row' FROM n",
    );
    assert.equal(await a.stop(), 0, a.log);
  });
  assert.ok(took < STOP_LIMIT_MS, `it took ${took} ms`);
  await until("b has all of it", async () => await b.app.value("SELECT count(*) FROM t") === 5001, { nodes: [b] });
  await a.start();
  await converged();
});

calm(
  "an application that holds a write lock for seconds delays Marmot, and nothing else",
  async ({ a, b, nodes, converged }) => {
    await using holder = await b.anotherApp();
    const held = holder.python(`db.execute("BEGIN IMMEDIATE")
db.execute("INSERT INTO t VALUES ('held', 1)")
time.sleep(${LOCK_HELD_S})
db.execute("COMMIT")`);
    await a.app.script("INSERT INTO t VALUES ('meanwhile', 1)");
    await held;
    await converged();
    for (const node of nodes) await node.running();
    assert.equal(await a.app.value("SELECT count(*) FROM t WHERE id IN ('held', 'meanwhile')"), 2);
  },
);

calm("a reader that keeps its snapshot for seconds holds nobody up", async ({ a, b, converged }) => {
  await using reader = await b.anotherApp();
  await reader.script("BEGIN; SELECT count(*) FROM t");
  await a.app.script("INSERT INTO t VALUES ('new', 1)");
  await converged();
  assert.equal(await reader.value("SELECT count(*) FROM t WHERE id = 'new'"), 0);
});

calm("a second Marmot on the same file is refused and harms nothing", async ({ a, b, converged }) => {
  const second = await marmot(a, ...a.args);
  assert.equal(second.code, CONFLICT, second.stderr);
  assert.match(second.stderr, /another Marmot runs on it/);
  await a.app.script("INSERT INTO t VALUES ('still', 1)");
  await converged();
  assert.equal(await b.app.value("SELECT count(*) FROM t WHERE id = 'still'"), 1);
});

calm("a copy of a running node's file, started as it is, is refused and harms nothing", async (cluster) => {
  const { a, b, folder, converged } = cluster;
  await converged();
  await a.app.run("VACUUM INTO ?", folder.file("copy.db"));
  const copied = await runProgram([...marmotCommand(), "--db-path", folder.file("copy.db"), ...a.args]);
  assert.equal(copied.code, CONFLICT, copied.stderr);
  assert.match(copied.stderr, /marmot clone/);
  await a.app.script("INSERT INTO t VALUES ('still going', 1)");
  await converged();
  assert.equal(await b.app.value("SELECT count(*) FROM t WHERE id = 'still going'"), 1);
  await a.running();
});

async function cloneOf(cluster: Cluster, source: TestNode, name: string): Promise<TestNode> {
  const made = await marmot(source, "clone", "--to", cluster.folder.file(`${name}.db`));
  assert.equal(made.code, 0, made.stderr);
  return await cluster.join(name);
}

test("a clone made under writes joins with everything, and replicates both ways", async (cluster) => {
  const { a, b, converged } = cluster;
  const writing = a.app.python(`for i in range(1500):
    db.execute("INSERT INTO t VALUES (?, randomblob(200))", ("a" + str(i),))
    time.sleep(0.001)`);
  const c = await cloneOf(cluster, a, "c");
  await c.app.script("INSERT INTO t VALUES ('before the start', 1)");
  await c.start();
  await b.app.script("INSERT INTO t VALUES ('of b', 1)");
  await c.app.script("INSERT INTO t VALUES ('of c', 1)");
  await writing;
  await converged();
  assert.equal(await b.app.value("SELECT count(*) FROM t"), 1_503);
  assert.notEqual((await status(c)).node, (await status(a)).node);
});

test("the clone of a stopped node joins too", async (cluster) => {
  const { a, b, converged } = cluster;
  await a.app.script("INSERT INTO t VALUES ('x', 1)");
  await converged();
  await b.stop();
  const c = await cloneOf(cluster, b, "c");
  await a.app.script("INSERT INTO t VALUES ('while away', 1)");
  await b.start();
  await c.start();
  await c.app.script("DELETE FROM t WHERE id = 'x'");
  await converged();
  assert.equal(await a.app.value("SELECT count(*) FROM t"), 1);
});

test("a clone is refused while changes are pending that nobody has read back", async (cluster) => {
  const { a, server, folder, converged } = cluster;
  await converged();
  await server!.stop();
  await a.app.script("INSERT INTO t VALUES ('pending', 1)");
  await a.stop();
  const made = await marmot(a, "clone", "--to", folder.file("c.db"));
  assert.notEqual(made.code, 0, made.stdout);
  assert.match(made.stderr, /not read back/);
  await assert.rejects(
    App.start(folder.file("c.db")).then(async (app) => {
      await using _ = app;
      await app.run("SELECT * FROM t");
    }),
  );
});

test("a clone is refused when its source drops a column while it reads back what is pending", async (cluster) => {
  const { a, server, folder, captured, converged } = cluster;
  await converged();
  await server!.stop();
  await a.app.script("INSERT INTO t VALUES ('pending', 'of a column that is dropped')");
  const path = folder.file("c.db");
  await using made = await startProgram([...marmotCommand(), "clone", "--to", path, "--db-path", a.path]);
  await made.waitFor("waiting until the source has read back");
  await a.app.script(dropColumn("t", "v"));
  await captured(["t"], [a]);
  await server!.restart();
  assert.equal((await made.exited).code, REFUSED, made.stderr);
  assert.match(made.stderr, /its schema changed .*Clone it again/);
  assert.equal(existsSync(path), false);
  await cloneOf(cluster, a, "c");
});

test("--cleanup removes every trace, says what, and refuses while a Marmot runs or changes are pending", async (cluster) => {
  const { a, server, converged } = cluster;
  await converged();
  const refused = await marmot(a, "--cleanup");
  assert.equal(refused.code, CONFLICT, refused.stderr);
  await server!.stop();
  await a.app.script("INSERT INTO t VALUES ('pending', 1)");
  await a.stop();
  const pending = await marmot(a, "-cleanup");
  assert.equal(pending.code, REFUSED, pending.stderr);
  assert.match(pending.stderr, /--force/);
  const cleaned = await marmot(a, "--cleanup", "--force");
  assert.equal(cleaned.code, 0, cleaned.stderr);
  assert.match(cleaned.stdout, /__marmot__t_change_log/);
  const left = await a.app.run("SELECT name FROM sqlite_schema WHERE name LIKE '\\_\\_%' ESCAPE '\\'");
  assert.deepEqual(left, [["__user"]]);
  assert.equal(await a.app.value("SELECT count(*) FROM t"), 1);
  assert.equal(await a.app.value("PRAGMA integrity_check"), "ok");
});

test("status tells node, shards, pending, parked and excluded, while Marmot runs and after", async (cluster) => {
  const { a, b, server, converged, settled, schema } = cluster;
  await schema("CREATE TABLE django_migrations(id INTEGER PRIMARY KEY)", { uncaptured: ["django_migrations"] });
  await a.app.script("INSERT INTO t VALUES ('x', 1)");
  await converged();
  // it is written twice a second at most
  await until("status is up to date", async () => {
    const { connected, excluded } = await status(a);
    return connected && excluded.length > 0;
  }, { nodes: [a] });
  const before = await status(a);
  assert.equal(before.running, true);
  assert.deepEqual(before.pending, []);
  assert.deepEqual(before.shards.map(({ stream, cursor, end }) => [stream, cursor === end, cursor > 0]), [[
    "marmot-changes-1",
    true,
    true,
  ]]);
  assert.deepEqual(before.excluded.map(({ name }) => name), ["django_migrations"]);
  await a.app.script("ALTER TABLE t ADD COLUMN extra; INSERT INTO t VALUES ('y', 2, 3)");
  await until("b parks it", async () => (await b.app.facts()).parked > 0, { nodes: [b] });
  assert.deepEqual((await status(b)).parked.map(({ table }) => table), ["t"]);
  // What b has may not have come back to a yet.
  await settled({ nodes: [a] });
  await server!.stop();
  await a.app.script("INSERT INTO t VALUES ('z', 3, 4)");
  await until("a notices", async () => !(await status(a)).connected, { nodes: [a] });
  assert.deepEqual((await status(a)).pending, [{ table: "t", entries: 1 }]);
  const text = await marmot(a, "status");
  assert.match(text.stdout, /marmot-changes-1/);
  await a.stop();
  assert.equal((await status(a)).running, false);
});

test("--backfill publishes the rows the first node already has, once", async ({ a, b, folder }) => {
  for (const node of [a, b]) await node.stop();
  const [first, second] = [folder.file("first.db"), folder.file("second.db")];
  await using one = await App.start(first);
  await using other = await App.start(second);
  for (const app of [one, other]) await app.script("CREATE TABLE t(id TEXT PRIMARY KEY, v)");
  await one.script("INSERT INTO t VALUES ('already there', 1), ('too', 2)");
  const args = [...a.args, "--stream-prefix", "other", "--subject-prefix", "other"];
  const backfill = [...marmotCommand(), "--db-path", first, "--backfill", ...args];
  await using begun = await startProgram(backfill);
  await using joined = await startProgram([...marmotCommand(), "--db-path", second, ...args]);
  const counts = (rows: number) => async () =>
    await one.value("SELECT count(*) FROM t") === rows && await other.value("SELECT count(*) FROM t") === rows;
  await until(`the rows arrive: ${joined.output}`, counts(2));
  await other.script("DELETE FROM t WHERE id = 'too'");
  await until("the row is gone", counts(1));
  assert.equal((await begun.stop()).code, 0);
  await using again = await startProgram(backfill);
  await other.script("INSERT INTO t VALUES ('later', 1)");
  await until(`the later row arrives: ${again.output}`, counts(2));
});
