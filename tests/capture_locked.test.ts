import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import type { Database, DriverValue, Row, Statement } from "../src/database.ts";
import { RunningNode } from "../src/marmot.ts";
import { lockPlace } from "../src/place.ts";
import { systemRuntime } from "../src/runtime/system.ts";
import { memoryBroker, MemoryStream } from "./support/memory_stream.ts";
import { tempFolder } from "./support/tmp.ts";

const PROMPT_MS = 20_000;
const SILENT = { debug() {}, info() {}, warn() {}, error() {} };

/** Another program's lock, in the way of the statement after the one that sees a commit. */
class Locked extends RunningNode {
  /** at the next commit that is seen */
  wanted = false;
  private due = false;
  private version: unknown;

  protected override open(): Database {
    const db = super.open();
    const free = <T>(run: () => T): T => {
      if (!this.due) return run();
      this.due = false;
      throw new Error("database is locked");
    };
    const look = (row: Row | undefined): Row | undefined => {
      this.due = this.wanted && this.version !== row?.[0];
      if (this.due) this.wanted = false;
      this.version = row?.[0];
      return row;
    };
    return {
      path: db.path,
      prepare(sql): Statement {
        const statement = free(() => db.prepare(sql));
        const get = (...params: DriverValue[]) => free(() => statement.get(...params));
        return {
          run: (...params) => free(() => statement.run(...params)),
          get: sql === "PRAGMA main.data_version" ? () => look(get()) : get,
          all: (...params) => free(() => statement.all(...params)),
        };
      },
      exec: (sql) => free(() => db.exec(sql)),
      setAuthorizer: (authorizer) => db.setAuthorizer(authorizer),
      function: (name, options, implementation) => db.function(name, options, implementation),
      close: () => db.close(),
    };
  }
}

class HeardStream extends MemoryStream {
  readonly published = Promise.withResolvers<void>();
  listens = false;

  override publish(data: Uint8Array): Promise<number> {
    if (this.listens) this.published.resolve();
    return super.publish(data);
  }
}

test("a commit is published although a lock is in the way right after it was seen", async () => {
  await using folder = await tempFolder();
  const path = folder.file("app.db");
  const app = new DatabaseSync(path);
  app.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'a')");
  const place = { dbPath: path, folder: folder.file("app.db-marmot"), created: false };
  mkdirSync(place.folder);
  const stream = new HeardStream("changes-1");
  const connect = () => Promise.resolve(memoryBroker(stream));
  const node = new Locked({ dbPath: path, connect, runtime: systemRuntime(SILENT) }, place, lockPlace(place)!);
  const limit = AbortSignal.timeout(PROMPT_MS);
  const late = new Promise<never>((_, reject) => limit.onabort = () => reject(limit.reason));
  try {
    await node.start();
    app.exec("INSERT INTO t VALUES (2, 'b')");
    await node.settled(limit);
    [node.wanted, stream.listens] = [true, true];
    app.exec("INSERT INTO t VALUES (3, 'c')");
    await Promise.race([stream.published.promise, late]);
    assert.equal(node.wanted, false);
  } finally {
    await node.stop();
    app.close();
  }
});
