import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { cloneDatabase } from "../src/clone.ts";
import { EXIT, MarmotError } from "../src/errors.ts";
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
  for (const [table, column] of [["tables", "home"], ["columns", "filled_to"], ["columns", "affinities"]]) {
    app.exec(`ALTER TABLE __marmot__${table} DROP COLUMN ${column}`);
  }
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

test("a database of a newer Marmot is refused in a sentence, and left as it is", async () => {
  await using folder = await tempFolder();
  const dbPath = folder.file("app.db");
  using app = new DatabaseSync(dbPath);
  app.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  const connect = () => Promise.resolve(memoryBroker(new MemoryStream("changes-1")));
  const start = () => startNode({ dbPath, connect, runtime: systemRuntime(SILENT) });
  await (await start()).stop();
  app.exec("UPDATE __marmot__node SET value = 1000 WHERE name = 'format'; CREATE TABLE later(id INTEGER PRIMARY KEY)");
  await assert.rejects(start(), (error) => {
    assert.ok(error instanceof MarmotError);
    assert.equal(error.exitCode, EXIT.refused);
    assert.match(error.message, /format 1000, .*Use a newer Marmot/);
    return true;
  });
  assert.equal(app.prepare("SELECT count(*) AS n FROM sqlite_schema WHERE name LIKE '%later_change_log'").get()!.n, 0);
});
