import assert from "node:assert/strict";
import { test } from "node:test";
import {
  DiscardPolicy,
  type JetStreamManager,
  jetstreamManager,
  RetentionPolicy,
  StorageType,
  type StreamConfig,
} from "@nats-io/jetstream";
import { BrokerUnreachableError, EXIT, MarmotError } from "../src/errors.ts";
import { type BrokerOptions, connectBroker } from "../src/nats/broker.ts";
import { connectNats } from "../src/nats/connect.ts";
import { type KeptLog, keptLog } from "./support/kept_log.ts";
import { startNatsServer } from "./support/nats.ts";

const DAY_MS = 86_400_000;
const GIB = 2 ** 30;

function optionsFor(url: string, more: Partial<BrokerOptions> = {}): BrokerOptions {
  return {
    urls: [url],
    streamPrefix: "orders",
    subjectPrefix: "marmot.orders",
    shards: 2,
    replicas: 1,
    retentionAgeMs: 7 * DAY_MS,
    retentionBytes: 4 * GIB,
    updateStreams: false,
    ...more,
  };
}

/** Starts as a node would, and stops. @returns what it logged */
async function start(options: BrokerOptions): Promise<KeptLog> {
  const log = keptLog();
  await (await connectBroker(options, log)).close();
  return log;
}

async function refused(options: BrokerOptions, pattern: RegExp, exitCode: number = EXIT.refused): Promise<void> {
  await assert.rejects(start(options), (error) => {
    assert.ok(error instanceof MarmotError && !(error instanceof BrokerUnreachableError), String(error));
    assert.match(error.message, pattern);
    assert.equal(error.exitCode, exitCode);
    return true;
  });
}

async function admin(url: string): Promise<{ manager: JetStreamManager } & AsyncDisposable> {
  const link = await connectNats({ urls: [url] }, keptLog());
  return { manager: await jetstreamManager(link.connection), [Symbol.asyncDispose]: () => link.close() };
}

async function streamNames(manager: JetStreamManager): Promise<string[]> {
  const names: string[] = [];
  for await (const name of manager.streams.names()) names.push(name);
  return names.sort();
}

test("missing streams are made as asked for: kept by age and bytes, oldest dropped first, on disk", async () => {
  await using server = await startNatsServer();
  await using as = await admin(server.url);
  await start(optionsFor(server.url));
  assert.deepEqual(await streamNames(as.manager), ["KV_orders-registry", "orders-1", "orders-2"]);
  const { config } = await as.manager.streams.info("orders-2");
  assert.deepEqual(config.subjects, ["marmot.orders-2"]);
  assert.equal(config.storage, StorageType.File);
  assert.equal(config.retention, RetentionPolicy.Limits);
  assert.equal(config.discard, DiscardPolicy.Old);
  assert.equal(config.max_age, 7 * DAY_MS * 1e6);
  assert.equal(config.max_bytes, 2 * GIB);
  assert.equal(config.max_msgs, -1);
  assert.equal(config.num_replicas, 1);
});

test("a second start finds nothing to change or to say", async () => {
  await using server = await startNatsServer();
  await start(optionsFor(server.url));
  const log = await start(optionsFor(server.url));
  assert.deepEqual(log.entries, []);
});

test("another retention is only warned of, with both values and the flag, and changed with it", async () => {
  await using server = await startNatsServer();
  await using as = await admin(server.url);
  await start(optionsFor(server.url));
  const other = optionsFor(server.url, { retentionAgeMs: DAY_MS, retentionBytes: GIB });
  const warned = (await start(other)).entries.filter(({ fields }) => fields.stream === "orders-1");
  assert.deepEqual(
    warned.map(({ level, fields }) => [level, fields.setting, fields.found, fields.wanted, fields.flag]),
    [
      ["warn", "max_age", "604800 s", "86400 s", "--update-streams"],
      ["warn", "max_bytes", "2147483648 bytes", "536870912 bytes", "--update-streams"],
    ],
  );
  assert.equal((await as.manager.streams.info("orders-1")).config.max_bytes, 2 * GIB);
  await start({ ...other, updateStreams: true });
  for (const name of ["orders-1", "orders-2"]) {
    const { config } = await as.manager.streams.info(name);
    assert.equal(config.max_bytes, GIB / 2);
    assert.equal(config.max_age, DAY_MS * 1e6);
  }
  assert.deepEqual((await start(other)).entries, []);
});

test("a stream that would drop or refuse messages in another way is refused, and changed with the flag where it can be", async () => {
  await using server = await startNatsServer();
  await using as = await admin(server.url);
  const cases: [Partial<StreamConfig>, RegExp, boolean][] = [
    [
      { subjects: ["elsewhere"] },
      /stream orders-1: its subject is elsewhere, and marmot\.orders-1.*--update-streams/,
      true,
    ],
    [{ discard: DiscardPolicy.New }, /discard policy is new, and old is needed.*--update-streams/, true],
    [{ max_msg_size: 1_000 }, /max_msg_size is 1000 bytes, and unlimited is needed.*--update-streams/, true],
    [{ no_ack: true }, /no_ack is true, and false is needed.*--update-streams/, true],
    [{ storage: StorageType.Memory }, /storage is memory, and file is needed. JetStream can't change this/, false],
    [{ retention: RetentionPolicy.Workqueue }, /retention policy is workqueue, and limits is needed/, false],
  ];
  for (const [config, pattern, changeable] of cases) {
    await as.manager.streams.add({ name: "orders-1", subjects: ["marmot.orders-1"], ...config });
    const options = optionsFor(server.url, { shards: 1 });
    await refused(options, pattern);
    if (changeable) await start({ ...options, updateStreams: true });
    else await refused({ ...options, updateStreams: true }, pattern);
    assert.equal(await as.manager.streams.delete("orders-1"), true);
  }
});

test("a subject that belongs to another stream is refused by name", async () => {
  await using server = await startNatsServer();
  await using as = await admin(server.url);
  await as.manager.streams.add({ name: "all", subjects: ["marmot.>"] });
  await refused(
    optionsFor(server.url),
    /stream orders-1: its subject marmot\.orders-1 belongs to another.*--subject-prefix/,
  );
});

test("a node with another count of shards is refused with both counts and makes nothing", async () => {
  await using server = await startNatsServer();
  await using as = await admin(server.url);
  await start(optionsFor(server.url));
  const pattern = /Cannot start with 4 shards: the cluster with the stream prefix orders has 2 shards.*Give --shards 2/;
  await refused(optionsFor(server.url, { shards: 4 }), pattern);
  await refused(optionsFor(server.url, { shards: 1 }), /has 2 shards/);
  assert.deepEqual(await streamNames(as.manager), ["KV_orders-registry", "orders-1", "orders-2"]);
});

test("another count of shards is refused even when the registry was lost", async () => {
  await using server = await startNatsServer();
  await using as = await admin(server.url);
  await start(optionsFor(server.url));
  await as.manager.streams.delete("KV_orders-registry");
  await refused(optionsFor(server.url, { shards: 4 }), /has streams for another count/);
  await refused(optionsFor(server.url, { shards: 1 }), /has streams for another count/);
  await start(optionsFor(server.url));
});

test("nodes that start at once agree, and each stream is made once", async () => {
  await using server = await startNatsServer();
  const starts = [2, 3, 2, 3].map((shards) => start(optionsFor(server.url, { shards })));
  const results = await Promise.allSettled(starts);
  const good = results.filter(({ status }) => status === "fulfilled").length;
  assert.equal(good, 2, JSON.stringify(results));
  await using as = await admin(server.url);
  const count = results[0]?.status === "fulfilled" ? 2 : 3;
  assert.equal((await streamNames(as.manager)).length, 1 + count);
});

test("replicas on a single server are refused with the flag that helps", async () => {
  await using server = await startNatsServer();
  await refused(optionsFor(server.url, { replicas: 3 }), /not part of a cluster.*--replicas 1/, EXIT.broker);
});

test("streams too small for a message, which would lose it at once, are a usage error", async () => {
  const small = optionsFor("nats://127.0.0.1:1", { shards: 64, retentionBytes: 2 ** 20 });
  await refused(small, /1048576 bytes in 64 streams.*--retention-bytes 64MiB/, EXIT.usage);
});

test("names that JetStream would not take are usage errors", async () => {
  const nobody = "nats://127.0.0.1:1";
  await refused(optionsFor(nobody, { streamPrefix: "a.b" }), /stream prefix "a\.b".*--stream-prefix/, EXIT.usage);
  await refused(optionsFor(nobody, { subjectPrefix: "a..b" }), /subject prefix.*--subject-prefix/, EXIT.usage);
  await refused(optionsFor(nobody, { subjectPrefix: "a.>" }), /subject prefix.*--subject-prefix/, EXIT.usage);
});
