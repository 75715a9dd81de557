import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { cloneDatabase } from "../src/clone.ts";
import { startNode } from "../src/marmot.ts";
import { systemRuntime } from "../src/runtime/system.ts";
import { memoryBroker, MemoryStream } from "./support/memory_stream.ts";
import { tempFolder } from "./support/tmp.ts";

const LIMIT_MS = 20_000;
const SILENT = { debug() {}, info() {}, warn() {}, error() {} };

test("a database that an older Marmot wrote can be cloned, and started again", async () => {
  await using folder = await tempFolder();
  const [from, to] = [folder.file("app.db"), folder.file("clone.db")];
  const app = new DatabaseSync(from);
  app.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  const stream = new MemoryStream("changes-1");
  const runtime = systemRuntime(SILENT);
  const signal = AbortSignal.timeout(LIMIT_MS);
  const started = (dbPath: string) =>
    startNode({ dbPath, connect: () => Promise.resolve(memoryBroker(stream)), runtime });
  await (await started(from)).stop();
  app.exec("ALTER TABLE __marmot__tables DROP COLUMN home; ALTER TABLE __marmot__columns DROP COLUMN filled_to");
  await cloneDatabase({ from, to, log: SILENT, clock: runtime.clock, signal });
  const clone = new DatabaseSync(to);
  for (const [path, writer] of [[from, app], [to, clone]] as const) {
    const node = await started(path);
    writer.prepare("INSERT INTO t VALUES (?, 'new')").run(path.length);
    await node.settled(signal);
    await node.stop();
  }
  assert.equal(clone.prepare("SELECT count(*) AS rows FROM t").get()!.rows, 2);
  clone.close();
  app.close();
});
