import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { SqlText } from "../src/change.ts";
import { decodeFrame, decodeMessage } from "../src/change_codec.ts";
import type { Database, DriverValue, Row, Statement } from "../src/database.ts";
import { RunningNode } from "../src/marmot.ts";
import { lockPlace } from "../src/place.ts";
import { systemRuntime } from "../src/runtime/system.ts";
import { untilAborted } from "../src/waiting.ts";
import { memoryBroker, MemoryStream } from "./support/memory_stream.ts";
import { tempFolder } from "./support/tmp.ts";

const PROMPT_MS = 20_000;
const SILENT = { debug() {}, info() {}, warn() {}, error() {} };

/** Another program's lock, in the way of one statement. */
class Locked extends RunningNode {
  /** the one after: the next commit that is seen, or the next transaction that gives a log another name */
  wanted: "commit seen" | "log renamed" | undefined;
  private renamed = false;
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
      this.due = this.wanted === "commit seen" && this.version !== row?.[0];
      if (this.due) this.wanted = undefined;
      this.version = row?.[0];
      return row;
    };
    const run = (sql: string) => {
      free(() => db.exec(sql));
      if (this.wanted !== "log renamed") return;
      this.renamed ||= sql.startsWith("ALTER TABLE") && sql.includes("RENAME TO");
      this.due = this.renamed && sql === "COMMIT";
      if (this.due) this.wanted = undefined;
    };
    return {
      path: db.path,
      inode: db.inode,
      prepare(sql): Statement {
        const statement = free(() => db.prepare(sql));
        const get = (...params: DriverValue[]) => free(() => statement.get(...params));
        return {
          run: (...params) => free(() => statement.run(...params)),
          get: sql === "PRAGMA main.data_version" ? () => look(get()) : get,
          all: (...params) => free(() => statement.all(...params)),
        };
      },
      exec: run,
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

interface Scene {
  readonly app: DatabaseSync;
  readonly node: Locked;
  readonly stream: HeardStream;
  readonly limit: AbortSignal;
}

async function withNode(sql: string, act: (scene: Scene) => Promise<void>): Promise<void> {
  await using folder = await tempFolder();
  const path = folder.file("app.db");
  const app = new DatabaseSync(path);
  app.exec(sql);
  const place = { dbPath: path, folder: folder.file("app.db-marmot"), created: false };
  mkdirSync(place.folder);
  const stream = new HeardStream("changes-1");
  const connect = () => Promise.resolve(memoryBroker(stream));
  const node = new Locked({ dbPath: path, connect, runtime: systemRuntime(SILENT) }, place, lockPlace(place)!);
  try {
    await node.start();
    await act({ app, node, stream, limit: AbortSignal.timeout(PROMPT_MS) });
  } finally {
    await node.stop();
    app.close();
  }
}

test("a commit is published although a lock is in the way right after it was seen", () =>
  withNode("CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'a')", async (scene) => {
    const { app, node, stream, limit } = scene;
    app.exec("INSERT INTO t VALUES (2, 'b')");
    await node.settled(limit);
    [node.wanted, stream.listens] = ["commit seen", true];
    app.exec("INSERT INTO t VALUES (3, 'c')");
    await untilAborted(stream.published.promise, limit);
    assert.equal(node.wanted, undefined);
  }));

test("tables that changed names are taken up although a lock is in the way right after that was seen", () =>
  withNode("CREATE TABLE a(id INTEGER PRIMARY KEY, v); CREATE TABLE b(id INTEGER PRIMARY KEY, v)", async (scene) => {
    const { app, node, stream, limit } = scene;
    app.exec("INSERT INTO b VALUES (1, 'x')");
    await node.settled(limit);
    // on their way, and not back
    [stream.direct, stream.listens] = [false, true];
    app.exec("INSERT INTO a VALUES (1, 'a'), (2, 'a'), (3, 'a')");
    await untilAborted(stream.published.promise, limit);
    node.wanted = "log renamed";
    app.exec("BEGIN; ALTER TABLE a RENAME TO c; ALTER TABLE b RENAME TO a; ALTER TABLE c RENAME TO b; COMMIT");
    app.exec("INSERT INTO a VALUES (2, 'new')");
    stream.direct = true;
    while (node.wanted !== undefined) await systemRuntime(SILENT).clock.sleep(1, limit);
    stream.flush();
    await node.settled(limit);
    const changes = stream.messages.flatMap(({ data }) => {
      const { frame } = decodeMessage(data);
      return frame.length === 0 ? [] : decodeFrame(frame);
    });
    const ofA = changes.filter(({ table }) => table === "a").flatMap((part) =>
      part.changes.map(({ values }) => values)
    );
    assert.deepEqual(ofA.at(-1), [2n, new SqlText(new TextEncoder().encode("new"))]);
  }));

test("who waits until writes came back is told although their table is renamed meanwhile", () =>
  withNode("CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'a')", async (scene) => {
    const { app, node, stream, limit } = scene;
    await node.settled(limit);
    [stream.direct, stream.listens] = [false, true];
    app.exec("INSERT INTO t VALUES (2, 'b')");
    await untilAborted(stream.published.promise, limit);
    const settled = node.settled(limit);
    const scans = systemRuntime(SILENT).clock;
    await scans.sleep(50, limit);
    app.exec("ALTER TABLE t RENAME TO u");
    while (app.prepare("SELECT 1 FROM sqlite_schema WHERE name = '__marmot__u_change_log'").get() === undefined) {
      await scans.sleep(1, limit);
    }
    stream.direct = true;
    stream.flush();
    await settled;
  }));
