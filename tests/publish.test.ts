/** A publisher that can't go on says so. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Acceptance } from "../src/acceptance.ts";
import { decodeMessage, encodeMessage } from "../src/change_codec.ts";
import { Publisher } from "../src/publish.ts";
import { settle } from "./support/core_node.ts";
import { keptLog } from "./support/kept_log.ts";
import { MemoryStream } from "./support/memory_stream.ts";

const MIB = 1024 * 1024;

/** It refuses what is larger, and keeps the rest. */
class PickyStream extends MemoryStream {
  limit = 1_000;

  override publish(data: Uint8Array): Promise<number> {
    if (data.length > this.limit) return Promise.reject(new Error("message size exceeds maximum allowed"));
    return super.publish(data);
  }
}

/** It keeps what is published to itself until it is told to answer. */
class SlowStream extends MemoryStream {
  readonly unanswered: (() => Promise<number>)[] = [];
  largest = 0;

  override publish(data: Uint8Array): Promise<number> {
    this.largest = Math.max(this.largest, data.length);
    const { promise, resolve } = Promise.withResolvers<number>();
    this.unanswered.push(async () => {
      resolve(await super.publish(data));
      return data.length;
    });
    return promise;
  }
}

test("how much waits for an answer, and how large a message is, follow how soon answers come", async () => {
  const stream = new SlowStream("changes-1");
  stream.direct = true;
  let time = 0;
  const publisher = new Publisher({
    stream,
    origin: "a".repeat(32),
    nonce: "b".repeat(16),
    clock: { now: () => time, sleep: () => Promise.resolve() },
    log: keptLog(),
    wake: () => {},
    rewind: () => {},
    conflict: assert.fail,
  });
  /** Sends what may be sent; all is answered after so long. @returns how many bytes waited */
  const round = async (ms: number) => {
    stream.largest = 0;
    while (publisher.open) publisher.send({ frame: new Uint8Array(MIB), base: 0, last: true });
    time += ms;
    const waiting = await Promise.all(stream.unanswered.splice(0).map((answer) => answer()));
    await settle();
    return waiting.reduce((sum, bytes) => sum + bytes, 0);
  };
  const start = async () => {
    const seen = { nonce: "b".repeat(16), epoch: 1, number: 1 };
    publisher.step(0, undefined);
    await settle();
    publisher.step(0, undefined);
    await round(1);
    publisher.step(1, seen);
  };
  await start();
  const first = await round(1);
  assert.ok(first < MIB, `${first} bytes at first`);
  let most = 0;
  for (let rounds = 0; rounds < 20; rounds++) most = Math.max(most, await round(1));
  assert.ok(most >= 8 * MIB && stream.largest > MIB / 2, `${most} bytes when answers are prompt`);
  let least = most;
  for (let rounds = 0; rounds < 400; rounds++) least = Math.min(least, await round(3_000));
  assert.ok(least <= 32 * 1024 && stream.largest <= 8 * 1024, `${least} bytes when answers are late`);
});

/** A process of a node: in a round it reads the stream to its end, and publishes where it may. */
function processOn(stream: MemoryStream, nonce = "b") {
  stream.direct = true;
  const log = keptLog();
  const conflicts: string[] = [];
  let time = 0;
  const publisher = new Publisher({
    stream,
    origin: "a".repeat(32),
    nonce: nonce.repeat(16),
    clock: { now: () => time += 500, sleep: () => Promise.resolve() },
    log,
    wake: () => {},
    rewind: () => {},
    conflict: (other) => conflicts.push(other),
  });
  const acceptance = new Acceptance(new Map());
  let applied = 0;
  const round = async (sizes: readonly number[] = []) => {
    publisher.step(applied, acceptance.of("a".repeat(32)));
    if (publisher.open) {
      for (const size of sizes) publisher.send({ frame: new Uint8Array(size), base: applied, last: true });
    }
    await settle();
    for (const { sequence, time, data } of stream.messages.slice(applied)) {
      const message = decodeMessage(data);
      publisher.observe({ sequence, time, data, message, verdict: acceptance.accept(message) });
      applied = sequence;
    }
  };
  return { publisher, log, conflicts, round };
}

test("a publisher sends nothing before apply has come to the stream's end, whatever was accepted", async () => {
  const stream = new MemoryStream("changes-1");
  const { round } = processOn(stream, "c");
  for (let rounds = 0; rounds < 6; rounds++) await round([10]);
  const end = stream.messages.length;
  const { publisher } = processOn(stream);
  const accepted = { nonce: "c".repeat(16), epoch: 1, number: end };
  for (let times = 0; times < 5; times++) {
    publisher.step(end - 1, accepted);
    await settle();
  }
  assert.equal(stream.messages.length, end);
  publisher.step(end, accepted);
  await settle();
  assert.equal(decodeMessage(stream.messages[end]!.data).epoch, 2);
});

test("a stream that takes markers and small messages, and refuses a large one, is named, until it takes that one", async () => {
  const stream = new PickyStream("changes-1");
  const { publisher, log, round } = processOn(stream);
  for (let rounds = 0; rounds < 60; rounds++) await round([2_000, 10]);
  assert.match(publisher.failing ?? "", /message size exceeds maximum allowed/);
  assert.equal(log.entries.filter(({ level }) => level === "warn").length, 1);
  stream.limit = 10_000;
  for (let rounds = 0; rounds < 6; rounds++) await round([2_000, 10]);
  assert.equal(publisher.failing, undefined);
});

test("a message of an earlier process that a stream gets again, after it was lost, does not end the node", async () => {
  const stream = new MemoryStream("changes-1");
  const { publisher, conflicts, round } = processOn(stream);
  for (let rounds = 0; rounds < 4; rounds++) await round();
  assert.equal(publisher.kind, "ready");
  const header = { origin: "a".repeat(32), nonce: "c".repeat(16), epoch: 9, number: 1, base: 2, part: 1 };
  stream.publish(encodeMessage({ ...header, last: true, continues: false, frame: new Uint8Array(0) }));
  await round();
  assert.equal(publisher.kind, "starting");
  for (let rounds = 0; rounds < 4; rounds++) await round();
  assert.equal(publisher.kind, "ready");
  assert.equal(decodeMessage(stream.messages.at(-1)!.data).epoch, 10);
  assert.deepEqual(conflicts, []);
});

test("of two processes that publish as one node one ends", async () => {
  const stream = new MemoryStream("changes-1");
  const processes = [processOn(stream, "b"), processOn(stream, "c")];
  for (let rounds = 0; rounds < 40; rounds++) {
    for (const { conflicts, round } of processes) if (conflicts.length === 0) await round([10]);
  }
  assert.deepEqual(processes.flatMap(({ conflicts }) => conflicts).length, 1);
});
