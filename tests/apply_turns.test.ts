import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { startNode } from "../src/marmot.ts";
import { systemRuntime } from "../src/runtime/system.ts";
import { memoryBroker, MemoryStream } from "./support/memory_stream.ts";
import { tempFolder } from "./support/tmp.ts";

const SHARDS = 8;
const PROMPT_MS = 10_000;
const WRITE_EVERY_MS = 1;
const ROWS = 40;
const SILENT = { debug() {}, info() {}, warn() {}, error() {} };

test("every shard goes on while an application writes to all of them without rest", async () => {
  await using folder = await tempFolder();
  const path = folder.file("app.db");
  const app = new DatabaseSync(path);
  app.exec("PRAGMA journal_mode = WAL; CREATE TABLE t(id TEXT PRIMARY KEY, v)");
  const streams = Array.from({ length: SHARDS }, (_, place) => new MemoryStream(`changes-${place + 1}`));
  for (const stream of streams) stream.direct = true;
  const connect = () => Promise.resolve({ ...memoryBroker(streams[0]!), streams });
  const node = await startNode({ dbPath: path, connect, runtime: systemRuntime(SILENT), shards: SHARDS });
  const put = app.prepare("INSERT INTO t VALUES (?, 1) ON CONFLICT DO UPDATE SET v = v + 1");
  const write = () => {
    for (let row = 0; row < ROWS; row++) put.run(`row ${row}`);
  };
  const writing = setInterval(write, WRITE_EVERY_MS);
  try {
    write();
    await node.settled(AbortSignal.timeout(PROMPT_MS));
    for (const { cursor } of node.status().shards) assert.ok(cursor > 1);
  } finally {
    clearInterval(writing);
    await node.stop();
    app.close();
  }
});
