/** What takes long to cross a slow link crosses it all the same. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { App } from "../support/app.ts";
import { startCluster, TestNode } from "../support/cluster.ts";
import { haveProgram } from "../support/skip.ts";
import { SlowLink } from "../support/slow_link.ts";

const BYTES_PER_SECOND = 400_000;
const ROWS = 800;
const ROW_BYTES = 4_096;
const TABLE = "CREATE TABLE t(id TEXT PRIMARY KEY, body BLOB)";

const rows = (name: string) =>
  `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${ROWS})
   INSERT INTO t SELECT '${name}' || i, randomblob(${ROW_BYTES}) FROM n`;

test("transactions that take a slow link many seconds arrive through it, both ways, on one connection", async (context) => {
  if (!await haveProgram(context, ["python3", "--version"])) return;
  await using cluster = await startCluster({ nodes: 1, prepare: `PRAGMA journal_mode = WAL; ${TABLE}` });
  await using link = await SlowLink.to(cluster.server!.port, BYTES_PER_SECOND);
  const path = cluster.folder.file("far.db");
  const far = new TestNode("far", path, await App.start(path), ["--nats-url", link.url], false);
  cluster.nodes.push(far);
  await far.app.script(`PRAGMA journal_mode = WAL; ${TABLE}`);
  await far.start();
  await cluster.settled();
  await far.app.script(rows("far"));
  await cluster.settled();
  await far.stop();
  await cluster.a.app.script(rows("a"));
  await cluster.settled({ nodes: [cluster.a] });
  await far.start();
  await cluster.converged();
  assert.doesNotMatch(far.log, /Connection to NATS lost/);
});
