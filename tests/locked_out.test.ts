import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { startNode } from "../src/marmot.ts";
import type { Runtime } from "../src/runtime.ts";
import { systemRuntime } from "../src/runtime/system.ts";
import { memoryBroker, MemoryStream } from "./support/memory_stream.ts";
import { tempFolder } from "./support/tmp.ts";

/** The node's clock goes so many times as fast: ten seconds of it are half of one. */
const TIMES = 20;
const LOOK_MS = 10;
const LIMIT_MS = 20_000;

async function until(what: () => boolean): Promise<void> {
  for (const end = performance.now() + LIMIT_MS; !what(); await sleep(LOOK_MS)) {
    if (performance.now() > end) throw new Error(`it never came to ${what}`);
  }
}

test("a lock that only keeps acknowledgements waiting is named, too, and said once", async () => {
  await using folder = await tempFolder();
  const path = folder.file("app.db");
  const app = new DatabaseSync(path);
  app.exec("PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY)");
  const warnings: string[] = [];
  const system = systemRuntime({ debug() {}, info() {}, warn: (line) => void warnings.push(line), error() {} });
  const clock: Runtime["clock"] = {
    now: () => TIMES * performance.now(),
    sleep: (ms, signal) => system.clock.sleep(ms / TIMES, signal),
  };
  const connect = () => Promise.resolve(memoryBroker(new MemoryStream("changes-1")));
  const node = await startNode({ dbPath: path, connect, runtime: { ...system, clock } });
  try {
    app.exec("INSERT INTO t VALUES (1)");
    await node.settled(AbortSignal.timeout(LIMIT_MS));
    app.exec("INSERT INTO t VALUES (2); BEGIN IMMEDIATE");
    await until(() => node.status().stops.length > 0);
    await sleep(LOOK_MS * TIMES);
    assert.equal(warnings.filter((line) => line.includes("lock")).length, 1);
    assert.equal(node.status().stops.length, 1);
    app.exec("COMMIT");
    await until(() => node.status().stops.length === 0);
  } finally {
    await node.stop();
    app.close();
  }
});
