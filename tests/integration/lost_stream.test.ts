import assert from "node:assert/strict";
import { type JetStreamManager, jetstreamManager } from "@nats-io/jetstream";
import { connectNats } from "../../src/nats/connect.ts";
import { readStatus } from "../../src/status.ts";
import { type Cluster, ownClusterTests, type TestNode, until } from "../support/cluster.ts";
import { keptLog } from "../support/kept_log.ts";
import { runProgram } from "../support/process.ts";
import { marmotCommand } from "../support/runtime.ts";

const STREAM = "marmot-changes-1";
const SUBJECT = "marmot.changes-1";
const JUNK_MESSAGES = 50;
const UNKNOWN_VERSION = 99;

const test = ownClusterTests({ prepare: "PRAGMA journal_mode = WAL; CREATE TABLE t(id TEXT PRIMARY KEY, v)" });

/** What somebody does to the stream behind Marmot's back. */
async function tamper(
  { server }: Cluster,
  action: (manager: JetStreamManager, publish: (data: Uint8Array) => Promise<void>) => Promise<void>,
): Promise<void> {
  const link = await connectNats({ urls: [server!.url] }, keptLog());
  try {
    const manager = await jetstreamManager(link.connection, { checkAPI: false });
    await action(manager, async (data) => {
      await link.connection.request(SUBJECT, data);
    });
  } finally {
    await link.close();
  }
}

/** The shard says why it stopped, in the log too; Marmot runs on, and so does the application, whose entries stay. */
async function stopsByName(node: TestNode, reason: RegExp): Promise<void> {
  const stopped = async () => (await readStatus(node.path)).shards[0]?.stopped ?? "";
  await until(`${node.name} stops its shard`, async () => reason.test(await stopped()), { nodes: [node] });
  await until(`${node.name} logs why`, () => Promise.resolve(reason.test(node.log)), { nodes: [node] });
  await node.app.run("INSERT INTO t VALUES (?, 1)", `of ${node.name}, after it`);
  await node.running();
  assert.deepEqual((await readStatus(node.path)).pending, [{ table: "t", entries: 1 }]);
}

test("a node that missed messages which are gone stops by name, and a fresh clone takes its place", async (cluster) => {
  const { a, b, folder, converged } = cluster;
  await a.app.script("INSERT INTO t VALUES ('before', 1)");
  await converged();
  await b.stop();
  await a.app.script("INSERT INTO t VALUES ('missed', 1)");
  await converged({ nodes: [a] });
  await tamper(cluster, async (manager) => void await manager.streams.purge(STREAM));
  await b.start();
  await stopsByName(b, /messages this node needs are gone.*marmot clone/);
  const [end] = (await readStatus(a.path)).shards.map(({ cursor }) => cursor);
  const known = async () => (await readStatus(b.path)).shards[0]?.end === end;
  await until("b says how far the stream goes, though it receives nothing", known, { nodes: [b] });
  const clone = [...marmotCommand(), "clone", "--db-path", a.path, "--to", folder.file("c.db")];
  assert.equal((await runProgram(clone)).code, 0);
  const c = await cluster.join("c");
  await c.start();
  await c.app.script("INSERT INTO t VALUES ('of c', 1)");
  await converged({ nodes: [a, c] });
  assert.equal(await a.app.value("SELECT group_concat(id) FROM t"), "before,missed,of c");
});

test("a stream that was made anew and has grown past the cursor stops the nodes by name", async (cluster) => {
  const { a, b, nodes, converged } = cluster;
  await a.app.script("INSERT INTO t VALUES ('before', 1)");
  await converged();
  await b.stop();
  await tamper(cluster, async (manager, publish) => {
    const { config } = await manager.streams.info(STREAM);
    await a.kill();
    await manager.streams.delete(STREAM);
    await manager.streams.add(config);
    for (let i = 0; i < JUNK_MESSAGES; i++) await publish(new Uint8Array([i]));
  });
  for (const node of nodes) {
    await node.start();
    await stopsByName(node, /another message at sequence \d+/);
  }
});

test("a message of a version that this Marmot does not know stops the shard by name", async (cluster) => {
  const { a, nodes, converged } = cluster;
  await a.app.script("INSERT INTO t VALUES ('before', 1)");
  await converged();
  await tamper(cluster, (_, publish) => publish(new Uint8Array([UNKNOWN_VERSION, 1, 2, 3, 4, 5])));
  for (const node of nodes) await stopsByName(node, /version 99, and this Marmot reads version 1/);
});
