import assert from "node:assert/strict";
import { copyFile, rename, rm } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { type Cluster, clusterTests, ownClusterTests, type TestNode, until } from "../support/cluster.ts";

const KILLS = 12;
const PREPARE =
  "PRAGMA journal_mode = WAL; CREATE TABLE t(id TEXT PRIMARY KEY, n INTEGER, v); CREATE TABLE u(id INTEGER PRIMARY KEY, v UNIQUE)";

/** A small random generator with a seed (mulberry32), so that a failing run can be had again. */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const writer = (name: string, rows: number) =>
  `for i in range(${rows}):
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO t VALUES ('${name}' || (SELECT count(*) FROM t WHERE id LIKE '${name}%'), ?, randomblob(?))", (i, i % 2000))
    db.execute("INSERT OR REPLACE INTO t VALUES ('same', ?, '${name}')", (i,))
    db.execute("INSERT OR REPLACE INTO u VALUES (?, ?)", (i % 17, i % 23))
    db.execute("COMMIT")
    time.sleep(0.004)`;

const test = clusterTests({ prepare: PREPARE, serverConfig: "max_payload: 20000" });

for (const seed of [11, 12]) {
  test(`Marmots killed at random moments under writes lose nothing and double nothing (seed ${seed})`, async (cluster) => {
    const { nodes, converged } = cluster;
    const random = randomOf(seed);
    const before = Number(await nodes[0]!.app.value("SELECT count(*) FROM t WHERE id <> 'same'"));
    const writing = Promise.all(nodes.map(({ app, name }) => app.python(writer(name, 1_000))));
    for (let kill = 0; kill < KILLS; kill++) {
      const node = nodes[Math.floor(random() * nodes.length)]!;
      await sleep(random() * 600);
      await node.kill();
      await node.start();
    }
    await writing;
    await converged();
    assert.equal(await nodes[0]!.app.value("SELECT count(*) FROM t WHERE id <> 'same'"), before + 2_000);
  });
}

test("a Marmot killed in the middle of a large batch, at either end, finishes it", async ({ a, b, converged }) => {
  const big =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000) INSERT INTO t SELECT 'big' || i, i, randomblob(500) FROM n";
  await a.app.script(big);
  await sleep(60);
  await a.kill();
  await a.start();
  await sleep(100);
  await b.kill();
  await b.start();
  await converged();
  assert.equal(await b.app.value("SELECT count(*) FROM t WHERE id LIKE 'big%'"), 4000);
});

/** A copy of a database as a backup program makes it. */
async function backup(node: TestNode, to: string): Promise<void> {
  await rm(to, { force: true });
  await node.app.run("VACUUM INTO ?", to);
}

/** Puts a copy in the place of a database: the application ends before and starts again after it. */
async function putBack(node: TestNode, copy: string): Promise<void> {
  await node.restartApp(async () => {
    for (const suffix of ["-wal", "-shm", "-journal"]) await rm(node.path + suffix, { force: true });
    await copyFile(copy, `${node.path}.restored`);
    await rename(`${node.path}.restored`, node.path);
  });
}

const restored = ownClusterTests({ prepare: PREPARE });

async function rows({ nodes }: Cluster, where: string): Promise<number[]> {
  return await Promise.all(
    nodes.map(async ({ app }) => Number(await app.value(`SELECT count(*) FROM t WHERE ${where}`))),
  );
}

restored("a database put back to an older copy while Marmot is down catches up again", async (cluster) => {
  const { a, b, folder, converged } = cluster;
  await a.app.script("INSERT INTO t VALUES ('before', 1, NULL)");
  await converged();
  await backup(a, folder.file("old.db"));
  await a.app.script(
    "INSERT INTO t VALUES ('of a', 1, NULL), ('also of a', 2, NULL); UPDATE t SET n = 10 WHERE id = 'before'",
  );
  await b.app.script("INSERT INTO t VALUES ('of b', 1, NULL)");
  await converged();
  await a.stop();
  await putBack(a, folder.file("old.db"));
  assert.equal(await a.app.value("SELECT count(*) FROM t"), 1);
  // The same numbers of entries are used again, for other rows.
  await a.app.script("INSERT INTO t VALUES ('anew', 1, NULL); INSERT INTO t VALUES ('anew 2', 1, NULL)");
  await a.start();
  await converged();
  assert.deepEqual(await rows(cluster, "id IN ('before', 'of a', 'also of a', 'of b', 'anew', 'anew 2')"), [6, 6]);
  assert.equal(await a.app.value("SELECT n FROM t WHERE id = 'before'"), 10);
});

restored("what was pending in an older copy is published when it is put back", async (cluster) => {
  const { a, b, folder, server, converged } = cluster;
  await converged();
  await server!.stop();
  await a.app.script("INSERT INTO t VALUES ('pending', 1, NULL); UPDATE t SET n = 2 WHERE id = 'pending'");
  await backup(a, folder.file("old.db"));
  await server!.restart();
  await converged();
  await b.app.script("UPDATE t SET n = 3 WHERE id = 'pending'; INSERT INTO t VALUES ('of b', 1, NULL)");
  await converged();
  await a.stop();
  await putBack(a, folder.file("old.db"));
  await a.start();
  await converged();
  assert.deepEqual(await rows(cluster, "id IN ('pending', 'of b')"), [2, 2]);
  // Its own messages acknowledge those entries, so that b's newer value stays.
  assert.equal(await a.app.value("SELECT n FROM t WHERE id = 'pending'"), 3);
});

restored("a database file replaced by an older copy while Marmot runs is taken for a new start", async (cluster) => {
  const { a, b, folder, converged } = cluster;
  await a.app.script("INSERT INTO t VALUES ('before', 1, NULL)");
  await converged();
  await backup(a, folder.file("old.db"));
  await a.app.script("INSERT INTO t VALUES ('of a', 1, NULL)");
  await b.app.script("INSERT INTO t VALUES ('of b', 1, NULL)");
  await converged();
  await putBack(a, folder.file("old.db"));
  await a.app.script("INSERT INTO t VALUES ('anew', 1, NULL)");
  await until("b has it", async () => await b.app.value("SELECT count(*) FROM t WHERE id = 'anew'") === 1, {
    nodes: [a, b],
  });
  await converged();
  assert.deepEqual(await rows(cluster, "id IN ('before', 'of a', 'of b', 'anew')"), [4, 4]);
});

restored("older rows written over the file by SQLite's own backup while Marmot runs are noticed", async (cluster) => {
  const { a, b, folder, converged } = cluster;
  await a.app.script("INSERT INTO t VALUES ('before', 1, NULL)");
  await converged();
  await backup(a, folder.file("old.db"));
  await b.app.script("INSERT INTO t VALUES ('of b', 1, NULL)");
  await a.app.script("INSERT INTO t VALUES ('of a', 1, NULL)");
  await converged();
  await a.app.python(`import sqlite3
source = sqlite3.connect("${folder.file("old.db")}")
source.backup(db)
source.close()`);
  await a.app.script("INSERT INTO t VALUES ('anew', 1, NULL)");
  await until("b has it", async () => await b.app.value("SELECT count(*) FROM t WHERE id = 'anew'") === 1, {
    nodes: [a, b],
  });
  await converged();
  assert.deepEqual(await rows(cluster, "id IN ('before', 'of a', 'of b', 'anew')"), [4, 4]);
});
