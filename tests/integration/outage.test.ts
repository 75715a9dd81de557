import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { type Cluster, clusterTests, ownClusterTests, until } from "../support/cluster.ts";

const OUTAGE_MS = 6_000;
const FROZEN_MS = 8_000;
const PREPARE =
  "PRAGMA journal_mode = WAL; CREATE TABLE t(id TEXT PRIMARY KEY, n INTEGER, v); CREATE TABLE u(id INTEGER PRIMARY KEY, v UNIQUE)";

const test = clusterTests({ prepare: PREPARE });

/** An application that writes every few milliseconds; tells how many rows it added. None of its writes may fail. */
const writer = (name: string, forMs: number) =>
  `end = time.time() + ${forMs / 1000}
i = 0
while time.time() < end:
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO t VALUES ('${name}' || (SELECT count(*) FROM t WHERE id LIKE '${name}%'), ?, ?)", (i, b"x" * (i % 300)))
    db.execute("INSERT OR REPLACE INTO t VALUES ('same', ?, '${name}')", (i,))
    db.execute("INSERT OR REPLACE INTO u VALUES (?, ?)", (i % 17, i % 23))
    db.execute("COMMIT")
    i += 1
    time.sleep(0.004)
result = i`;

/** All nodes write for `forMs` while `trouble` happens; then all is there, on all nodes. */
async function duringWrites({ nodes, converged }: Cluster, forMs: number, trouble: () => Promise<void>): Promise<void> {
  const before = await nodes[0]!.app.value("SELECT count(*) FROM t WHERE id <> 'same'");
  const writing = Promise.all(nodes.map(({ app, name }) => app.python(writer(name, forMs))));
  await trouble();
  const written = (await writing).map(Number).reduce((sum, rows) => sum + rows, 0);
  await converged();
  assert.equal(await nodes[0]!.app.value("SELECT count(*) FROM t WHERE id <> 'same'"), Number(before) + written);
  for (const node of nodes) await node.running();
}

test("writes during an outage of the broker that was killed arrive after it", async (cluster) => {
  await duringWrites(cluster, OUTAGE_MS + 2_000, async () => {
    await sleep(500);
    await cluster.server!.kill();
    await sleep(OUTAGE_MS);
    await cluster.server!.restart();
  });
});

test("a broker that is killed again and again loses nothing and doubles nothing", async (cluster) => {
  await duringWrites(cluster, 6_000, async () => {
    for (let i = 0; i < 5; i++) {
      await sleep(300 + 170 * i);
      await cluster.server!.kill();
      await cluster.server!.restart();
    }
  });
});

test("a broker that hangs, with its connections open, holds nobody up for good", async (cluster) => {
  await duringWrites(cluster, FROZEN_MS, async () => {
    await sleep(500);
    cluster.server!.freeze();
    await sleep(FROZEN_MS - 2_000);
    cluster.server!.thaw();
  });
});

test("a node that starts while the broker is away captures at once and publishes later", async (cluster) => {
  const { a, b, server, nodes, converged } = cluster;
  await converged();
  await server!.stop();
  assert.equal(await a.stop(), 0);
  await a.app.script("INSERT INTO t VALUES ('while down', 1, NULL)");
  await a.start();
  await a.app.script("ALTER TABLE u ADD COLUMN extra; INSERT INTO t VALUES ('without broker', 2, NULL)");
  await b.app.script("ALTER TABLE u ADD COLUMN extra; INSERT INTO u(id, extra) VALUES (100, 'of b')");
  await server!.restart();
  await converged();
  assert.equal(await b.app.value("SELECT count(*) FROM t WHERE id IN ('while down', 'without broker')"), 2);
  for (const node of nodes) await node.running();
});

test("an outage that outlasts a restart of Marmot loses nothing", async (cluster) => {
  const { a, b, server, converged } = cluster;
  await server!.kill();
  await a.app.script("INSERT INTO t VALUES ('first', 1, NULL)");
  await until("it is pending", async () => (await a.app.facts()).pending.t !== undefined, { nodes: [a] });
  await a.kill();
  await a.app.script("INSERT INTO t VALUES ('second', 2, NULL)");
  await a.start();
  await a.app.script("INSERT INTO t VALUES ('third', 3, NULL)");
  await server!.restart();
  await converged();
  assert.equal(await b.app.value("SELECT count(*) FROM t WHERE id IN ('first', 'second', 'third')"), 3);
});

ownClusterTests({ nodes: 1, prepare: PREPARE })(
  "a broker that is lost in the middle of a node's first start does not end that node",
  async (cluster) => {
    const { server, converged } = cluster;
    for (const [place, name] of ["x", "y", "z"].entries()) {
      const node = await cluster.join(name);
      await node.app.script(PREPARE);
      await node.start();
      // Its tables are there a moment before it has joined the others.
      if (place % 2 === 0) await server!.kill();
      else server!.freeze();
      await node.app.run("INSERT INTO t VALUES (?, 1, NULL)", name);
      await sleep(300);
      if (place % 2 === 0) await server!.restart();
      else server!.thaw();
      await converged();
    }
  },
);

const embedded = clusterTests({ prepare: PREPARE, broker: "embedded" });

embedded("an embedded broker that is killed is started again, and nothing is lost", async (cluster) => {
  await duringWrites(cluster, 6_000, async () => {
    await sleep(500);
    process.kill(await brokerPid(cluster), "SIGKILL");
    await sleep(1_500);
    process.kill(await brokerPid(cluster), "SIGKILL");
  });
});

embedded("an embedded broker goes and comes with its Marmot, also when that is killed", async (cluster) => {
  const { a } = cluster;
  await duringWrites(cluster, 7_000, async () => {
    await sleep(500);
    assert.equal(await a.stop(), 0);
    await sleep(500);
    await a.start();
    await sleep(1_000);
    await a.kill();
    await a.start();
  });
});

async function brokerPid({ a }: Cluster): Promise<number> {
  let pid = 0;
  await until("the broker's pid file names a living process", async () => {
    pid = Number(await readFile(join(a.folder, "nats", "nats-server.pid"), "utf8").catch(() => "0"));
    return pid > 0 && isAlive(pid);
  }, { nodes: [a] });
  return pid;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
