import assert from "node:assert/strict";
import { copyFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { backup, DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { type Node, startNode } from "../src/marmot.ts";
import type { Log, LogFields } from "../src/runtime.ts";
import { systemRuntime } from "../src/runtime/system.ts";
import { memoryBroker, MemoryStream } from "./support/memory_stream.ts";
import { openDatabase } from "../src/sqlite/connection.ts";
import { readFact } from "../src/sqlite/own_tables.ts";
import { tempFolder } from "./support/tmp.ts";

const PROMPT_MS = 20_000;

/** What a node says, and a wait for it. */
class Told implements Log {
  private readonly lines: string[] = [];
  private heard = Promise.withResolvers<void>();

  async until(text: string, from = 0): Promise<number> {
    const limit = AbortSignal.timeout(PROMPT_MS);
    for (;;) {
      const place = this.lines.findIndex((line, i) => i >= from && line.includes(text));
      if (place >= 0) return place;
      const late = Promise.withResolvers<never>();
      limit.onabort = () => late.reject(new Error(`not told: ${text}\n${this.lines.join("\n")}`));
      await Promise.race([this.heard.promise, late.promise]);
    }
  }

  debug = (message: string, fields?: LogFields) => this.tell(message, fields);
  info = this.debug;
  warn = this.debug;
  error = this.debug;

  private tell(message: string, fields: LogFields = {}): void {
    this.lines.push(
      `${message} ${JSON.stringify(fields, (_, value) => typeof value === "bigint" ? `${value}` : value)}`,
    );
    this.heard.resolve();
    this.heard = Promise.withResolvers();
  }
}

function write(path: string, sql: string): void {
  const app = new DatabaseSync(path);
  app.exec(sql);
  app.close();
}

interface Started {
  readonly node: Node;
  readonly told: Told;
  readonly path: string;
  readonly leased: string[];
  readonly stream: MemoryStream;
  /** puts another file in the place of the database, in one step */
  put(make: (path: string) => void): void;
}

async function withNode(body: (started: Started) => Promise<void>): Promise<void> {
  await using folder = await tempFolder();
  const path = folder.file("app.db");
  write(path, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  const told = new Told();
  const stream = new MemoryStream("changes-1");
  const leased: string[] = [];
  const connect = () => Promise.resolve(memoryBroker(stream, leased));
  const node = await startNode({ dbPath: path, connect, runtime: systemRuntime(told) });
  const failure = node.failed.then((error) => assert.fail(error));
  const put = (make: (path: string) => void) => {
    make(folder.file("other.db"));
    for (const suffix of ["-wal", "-shm", "-journal"]) rmSync(path + suffix, { force: true });
    renameSync(folder.file("other.db"), path);
  };
  try {
    await Promise.race([body({ node, told, path, leased, stream, put }), failure]);
  } finally {
    await node.stop();
  }
}

test("a file that is half restored is waited for, and the node goes on with the whole one", () =>
  withNode(async ({ node, told, path, put }) => {
    write(path, "INSERT INTO t VALUES (1, 'a')");
    await node.settled(AbortSignal.timeout(PROMPT_MS));
    copyFileSync(path, `${path}.backup`);
    write(path, "INSERT INTO t VALUES (2, 'b')");
    await node.settled(AbortSignal.timeout(PROMPT_MS));
    put((other) => writeFileSync(other, "half of a file, or less ".repeat(400)));
    await told.until("waiting for a database that can be used");
    put((other) => copyFileSync(`${path}.backup`, other));
    const again = await told.until("waiting for a database");
    await told.until("capturing", again);
    write(path, "INSERT INTO t VALUES (3, 'c')");
    await node.settled(AbortSignal.timeout(PROMPT_MS));
    const app = new DatabaseSync(path);
    assert.deepEqual(app.prepare("SELECT id FROM t").all().map(({ id }) => id), [1, 2, 3]);
    app.close();
  }));

test("an older copy with the same cursor is noticed by the entries that are not there any more", () =>
  withNode(async ({ node, told, path, stream }) => {
    write(path, "INSERT INTO t VALUES (1, 'a')");
    await node.settled(AbortSignal.timeout(PROMPT_MS));
    copyFileSync(path, `${path}.backup`);
    stream.direct = false;
    write(path, "INSERT INTO t VALUES (2, 'b')");
    const limit = AbortSignal.timeout(PROMPT_MS);
    while (stream.network.length === 0) await new Promise((resolve) => setTimeout(resolve, 5, limit.throwIfAborted()));
    const older = new DatabaseSync(`${path}.backup`);
    await backup(older, path);
    older.close();
    write(path, "INSERT INTO t VALUES (3, 'c')");
    await told.until("starting again");
    stream.flush();
    stream.direct = true;
    await told.until("capturing", await told.until("starting again"));
    await node.settled(AbortSignal.timeout(PROMPT_MS));
    const app = new DatabaseSync(path);
    assert.deepEqual(app.prepare("SELECT id FROM t").all().map(({ id }) => id), [1, 2, 3]);
    app.close();
  }));

test("a file that was never replicated makes the node another one, with a lease of its own", () =>
  withNode(async ({ node, told, put, leased }) => {
    const before = node.id;
    put((other) => write(other, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)"));
    const again = await told.until("starting again");
    await told.until("capturing", again);
    assert.notEqual(node.id, before);
    await told.until("connected");
    await node.settled(AbortSignal.timeout(PROMPT_MS));
    assert.deepEqual(leased, [before, node.id]);
  }));

test("a file that is replaced while a start waits for a lock is the one that the node works on", async () => {
  await using folder = await tempFolder();
  const path = folder.file("app.db");
  const schema = "PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v)";
  write(path, schema);
  const busy = new DatabaseSync(path);
  busy.exec("BEGIN IMMEDIATE");
  const told = new Told();
  const connect = () => Promise.resolve(memoryBroker(new MemoryStream("changes-1")));
  const starting = startNode({ dbPath: path, connect, runtime: systemRuntime(told) });
  await told.until("another process holds the database's lock");
  write(folder.file("other.db"), schema);
  for (const suffix of ["-wal", "-shm"]) rmSync(path + suffix, { force: true });
  renameSync(folder.file("other.db"), path);
  busy.exec("ROLLBACK");
  busy.close();
  const node = await starting;
  try {
    await told.until("capturing", await told.until("starting again"));
    write(path, "INSERT INTO t VALUES (1, 'a')");
    await node.settled(AbortSignal.timeout(PROMPT_MS));
    const marmot = openDatabase(path);
    assert.equal(marmot.prepare("SELECT max(seq) FROM __marmot__t_change_log").get()![0], null);
    assert.deepEqual(node.status().shards.map(({ cursor }) => cursor > 1), [true]);
    assert.equal(readFact(marmot, "shards"), "1");
    marmot.close();
  } finally {
    await node.stop();
  }
});

test("a node stops while it waits for its file", () =>
  withNode(async ({ node, told, path }) => {
    rmSync(path);
    await told.until("waiting for a database that can be used");
    await node.stop();
  }));

test("a file that is replaced while the lease is waited for is connected once, and the one before hears nothing more", async () => {
  await using folder = await tempFolder();
  const path = folder.file("app.db");
  const schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";
  write(path, schema);
  const told = new Told();
  const stream = new MemoryStream("changes-1");
  const listeners = new Set<(connected: boolean) => void>();
  const broker = memoryBroker(stream, [], listeners);
  const asked = Promise.withResolvers<void>();
  const given = Promise.withResolvers<void>();
  const leased: string[] = [];
  const lease: typeof broker.registry.lease = async (id, ...rest) => {
    asked.resolve();
    await given.promise;
    leased.push(id);
    return await broker.registry.lease(id, ...rest);
  };
  let subscriptions = 0;
  const subscribe = stream.subscribe.bind(stream);
  stream.subscribe = (sequence) => {
    subscriptions++;
    return subscribe(sequence);
  };
  const connect = () => Promise.resolve({ ...broker, registry: { ...broker.registry, lease } });
  const starting = startNode({ dbPath: path, connect, runtime: systemRuntime(told) });
  await asked.promise;
  await told.until("capturing");
  write(folder.file("other.db"), schema);
  for (const suffix of ["-wal", "-shm", "-journal"]) rmSync(path + suffix, { force: true });
  renameSync(folder.file("other.db"), path);
  await told.until("capturing", await told.until("starting again"));
  given.resolve();
  const node = await starting;
  try {
    write(path, "INSERT INTO t VALUES (1, 'a')");
    await node.settled(AbortSignal.timeout(PROMPT_MS));
    assert.equal(leased.at(-1), node.id);
    assert.deepEqual([subscriptions, listeners.size], [1, 1]);
  } finally {
    await node.stop();
  }
});
