/** Where tables' rows go, as the cluster agrees: what follows from an answer, from none, and from a schema that changes. */
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import type { Agreement } from "../src/broker.ts";
import { BrokerUnreachableError, EXIT, MarmotError } from "../src/errors.ts";
import { RunningNode } from "../src/marmot.ts";
import { lockPlace } from "../src/place.ts";
import { Placements } from "../src/placements.ts";
import { systemRuntime } from "../src/runtime/system.ts";
import { corePair } from "./support/core_pair.ts";
import { keptLog } from "./support/kept_log.ts";
import { memoryBroker, MemoryStream } from "./support/memory_stream.ts";
import { tempFolder } from "./support/tmp.ts";

const PROMPT_MS = 20_000;
const TABLE = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";

test("a renamed table keeps what the cluster agreed about its rows, also on a node that did not see the rename", async () => {
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE)");
  const { a } = pair;
  const registry = memoryRegistry();
  const placements = new Placements(2, keptLog());
  await placements.ask(registry, a.node.installed);
  a.run("ALTER TABLE t RENAME TO u");
  a.node.install();
  assert.ok(!placements.fits(a.node.installed));
  await placements.ask(registry, a.node.installed);
  assert.ok(placements.fits(a.node.installed));
  assert.deepEqual(placements.all.get("u"), { placement: "whole", home: "t" });
  // set up with the table as it is called now
  await using late = await corePair("CREATE TABLE u(id INTEGER PRIMARY KEY, v UNIQUE)");
  const others = new Placements(2, keptLog());
  await others.ask(registry, late.a.node.installed);
  assert.deepEqual(others.all.get("u"), { placement: "whole", home: "t" });
});

function memoryRegistry() {
  const agreed = new Map<string, Agreement>();
  return {
    agreeShards: () => Promise.resolve(),
    agreePlacement(table: string, proposal: Agreement) {
      agreed.set(table, agreed.get(table) ?? proposal);
      return Promise.resolve(agreed.get(table)!);
    },
    lease: () => Promise.reject(new Error("no lease is asked for")),
  };
}

test("a table that gets a UNIQUE constraint, while its rows are spread, is published again once that is gone", async () => {
  await using folder = await tempFolder();
  const path = folder.file("app.db");
  using app = new DatabaseSync(path);
  app.exec(`PRAGMA journal_mode = WAL; ${TABLE}`);
  const place = { dbPath: path, folder: folder.file("app.db-marmot"), created: false };
  mkdirSync(place.folder);
  const streams = [new MemoryStream("changes-1"), new MemoryStream("changes-2")];
  for (const stream of streams) stream.direct = true;
  const log = keptLog();
  const runtime = systemRuntime(log);
  const connect = () => Promise.resolve({ ...memoryBroker(streams[0]!), streams });
  const node = new RunningNode({ dbPath: path, shards: 2, connect, runtime }, place, lockPlace(place)!);
  const limit = AbortSignal.timeout(PROMPT_MS);
  await node.start();
  try {
    app.exec("INSERT INTO t VALUES (1, 'a')");
    await node.settled(limit);
    const published = () => streams.map(({ messages }) => messages.length);
    const before = published();
    app.exec("BEGIN; CREATE UNIQUE INDEX i ON t(v); REPLACE INTO t VALUES (2, 'a'); COMMIT");
    while (node.status().stops.length === 0) await runtime.clock.sleep(5, limit);
    assert.match(node.status().stops[0]!, /table t has a UNIQUE constraint .* spreads its rows over 2: nothing is/);
    assert.deepEqual(log.entries.filter(({ level }) => level === "error").map(({ message }) => message), [
      "nothing is published",
    ]);
    assert.deepEqual(published(), before);
    app.exec("DROP INDEX i");
    await node.settled(limit);
    assert.deepEqual(node.status().stops, []);
  } finally {
    await node.stop();
  }
});

test("what keeps the cluster from agreeing is said, and forgotten once it has agreed", async () => {
  await using pair = await corePair(TABLE);
  const { installed } = pair.a.node;
  const registry = memoryRegistry();
  const log = keptLog();
  const placements = new Placements(2, log);
  const agreePlacement = () => Promise.reject(new MarmotError("Cannot place it: unknown.", EXIT.refused));
  await assert.rejects(placements.ask({ ...registry, agreePlacement }, installed));
  assert.equal(placements.trouble, "Cannot place it: unknown. Nothing is published until then.");
  await assert.rejects(placements.ask({ ...registry, agreePlacement }, installed));
  assert.equal(log.entries.length, 1);
  assert.equal(await placements.ask(registry, installed), true);
  assert.ok(placements.fits(installed));
  assert.equal(placements.trouble, undefined);
});

test("a registry that does not answer is said when that does not pass", async () => {
  await using pair = await corePair(TABLE);
  const placements = new Placements(2, keptLog());
  const agreePlacement = () => Promise.reject(new BrokerUnreachableError("Cannot agree: no answer."));
  const registry = { ...memoryRegistry(), agreePlacement };
  await assert.rejects(placements.ask(registry, pair.a.node.installed));
  assert.equal(placements.trouble, undefined);
  for (let tries = 0; tries < 10; tries++) await assert.rejects(placements.ask(registry, pair.a.node.installed));
  assert.match(placements.trouble ?? "", /no answer/);
});

test("entries of a table that was gone before anybody agreed about it don't spread it for those that have it", async () => {
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE)");
  const { a, b } = pair;
  a.run("INSERT INTO t VALUES (1, 'a'); DROP TABLE t");
  a.node.install();
  const registry = memoryRegistry();
  for (const { node } of [a, b]) {
    const placements = new Placements(2, keptLog());
    await placements.ask(registry, node.installed);
    assert.ok(placements.fits(node.installed));
    assert.equal(placements.all.get("t")?.placement, "whole");
  }
});
