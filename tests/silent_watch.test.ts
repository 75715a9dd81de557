/** A file system that tells of nothing (a network one, or no watches left): what is committed is found by looking. */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { startNode } from "../src/marmot.ts";
import { systemRuntime } from "../src/runtime/system.ts";
import { keptLog } from "./support/kept_log.ts";
import { memoryBroker, MemoryStream } from "./support/memory_stream.ts";
import { within } from "./support/process.ts";
import { tempFolder } from "./support/tmp.ts";

const COMMITS = 5;
/** a look once a second, or four times once a commit came without an event, and a crowded machine */
const FOUND_MS = 5_000;
const POLL_MS = 10;

for (const mode of ["WAL", "DELETE"]) {
  test(`commits are published although no event tells of them, with journal mode ${mode}`, async () => {
    await using folder = await tempFolder();
    const dbPath = folder.file("app.db");
    const app = new DatabaseSync(dbPath, { timeout: 5_000 });
    app.exec(`PRAGMA journal_mode = ${mode}; CREATE TABLE t(id INTEGER PRIMARY KEY)`);
    const wait = (ms: number, signal: AbortSignal) => sleep(ms, false, { signal });
    const runtime = { ...systemRuntime(keptLog()), watch: () => ({ wait, close() {} }) };
    const connect = () => Promise.resolve(memoryBroker(new MemoryStream("changes-1"), []));
    const node = await startNode({ dbPath, connect, runtime });
    try {
      await node.settled();
      const pending = app.prepare("SELECT count(*) AS entries FROM __marmot__t_change_log");
      const published = async () => {
        while (pending.get()?.entries !== 0) await sleep(POLL_MS);
      };
      for (let id = 1; id <= COMMITS; id++) {
        app.exec(`INSERT INTO t VALUES (${id})`);
        assert.equal(pending.get()?.entries, 1);
        await within(FOUND_MS, published(), () => `commit ${id} is not found`);
      }
    } finally {
      await node.stop();
      app.close();
    }
  });
}
