import assert from "node:assert/strict";
import { existsSync, mkdirSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import type { Subscription } from "../src/change_stream.ts";
import { cloneDatabase } from "../src/clone.ts";
import { SubscriptionLostError } from "../src/errors.ts";
import { RunningNode, startNode } from "../src/marmot.ts";
import { lockPlace } from "../src/place.ts";
import { systemRuntime } from "../src/runtime/system.ts";
import { untilAborted } from "../src/waiting.ts";
import { keptLog } from "./support/kept_log.ts";
import { memoryBroker, MemoryStream } from "./support/memory_stream.ts";
import { tempFolder } from "./support/tmp.ts";

const PROMPT_MS = 10_000;

/** A stream whose leader dies, which its clients learn by their subscriptions only: they are connected to another server. */
class Failing extends MemoryStream {
  /** what is stored is not delivered */
  held = false;
  private life = Promise.withResolvers<never>();

  override async subscribe(sequence: number): Promise<Subscription> {
    const inner = await super.subscribe(sequence);
    const dead = this.life.promise;
    dead.catch(() => {});
    const take = async (bytes: number, signal: AbortSignal) => {
      const messages = await Promise.race([inner.take(bytes, signal), dead]);
      return this.held ? await untilAborted(dead, signal) : messages;
    };
    return { take, close: inner.close };
  }

  failOver(kept: number): void {
    this.messages.splice(kept);
    this.held = false;
    this.life.reject(new SubscriptionLostError("the consumer fell silent"));
    this.life = Promise.withResolvers();
  }
}

test("an entry whose message the stream acknowledged and lost is published again", async () => {
  await using folder = await tempFolder();
  const path = folder.file("app.db");
  using app = new DatabaseSync(path);
  app.exec("PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  const place = { dbPath: path, folder: folder.file("app.db-marmot"), created: false };
  mkdirSync(place.folder);
  const stream = new Failing("changes-1");
  const runtime = systemRuntime(keptLog());
  const node = new RunningNode(
    { dbPath: path, connect: () => Promise.resolve(memoryBroker(stream)), runtime },
    place,
    lockPlace(place)!,
  );
  const limit = AbortSignal.timeout(PROMPT_MS);
  await node.start();
  try {
    app.exec("INSERT INTO t VALUES (1, 'a')");
    await node.settled(limit);
    const kept = stream.messages.length;
    stream.held = true;
    app.exec("INSERT INTO t VALUES (2, 'b')");
    while (stream.messages.length === kept) await runtime.clock.sleep(5, limit);
    stream.failOver(kept);
    await node.settled(limit);
    assert.ok(stream.messages.length > kept);
  } finally {
    await node.stop();
  }
});

test("a clone whose stream lost messages that it has rows of stops by name, and goes no further", async () => {
  await using folder = await tempFolder();
  const [from, to] = [folder.file("app.db"), folder.file("clone.db")];
  using app = new DatabaseSync(from);
  app.exec("PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  const stream = new MemoryStream("changes-1");
  const connect = () => Promise.resolve(memoryBroker(stream));
  const runtime = systemRuntime(keptLog());
  const signal = AbortSignal.timeout(PROMPT_MS);
  const source = await startNode({ dbPath: from, connect, runtime });
  app.exec("INSERT INTO t VALUES (1, 'kept')");
  await source.settled(signal);
  const kept = stream.messages.length;
  stream.direct = false;
  app.exec("INSERT INTO t VALUES (2, 'lost')");
  while (stream.network.length === 0) await runtime.clock.sleep(5, signal);
  const cloned = cloneDatabase({ from, to, log: runtime.log, clock: runtime.clock, signal });
  while (!existsSync(`${to}.marmot-clone`)) await runtime.clock.sleep(5, signal);
  await runtime.clock.sleep(50, signal);
  stream.flush();
  await cloned;
  await source.stop();
  stream.messages.splice(kept);
  const clone = await startNode({ dbPath: to, connect, runtime });
  try {
    const stopped = () => clone.status().shards[0]?.stopped ?? undefined;
    while (stopped() === undefined) await runtime.clock.sleep(5, signal);
    assert.match(stopped()!, /messages this node needs are gone/);
    assert.equal(stream.messages.length, kept);
  } finally {
    await clone.stop();
  }
});
