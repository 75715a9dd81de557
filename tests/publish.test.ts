/** A publisher that can't go on says so. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Acceptance } from "../src/acceptance.ts";
import { decodeMessage } from "../src/change_codec.ts";
import { Publisher } from "../src/publish.ts";
import { settle } from "./support/core_node.ts";
import { keptLog } from "./support/kept_log.ts";
import { MemoryStream } from "./support/memory_stream.ts";

/** It refuses what is larger, and keeps the rest. */
class PickyStream extends MemoryStream {
  limit = 1_000;

  override publish(data: Uint8Array): Promise<number> {
    if (data.length > this.limit) return Promise.reject(new Error("message size exceeds maximum allowed"));
    return super.publish(data);
  }
}

test("a stream that takes markers and small messages, and refuses a large one, is named, until it takes that one", async () => {
  const stream = new PickyStream("changes-1");
  stream.direct = true;
  const log = keptLog();
  let time = 0;
  const publisher = new Publisher({
    stream,
    origin: "a".repeat(32),
    nonce: "b".repeat(16),
    clock: { now: () => time += 500, sleep: () => Promise.resolve() },
    log,
    wake: () => {},
    rewind: () => {},
    conflict: assert.fail,
  });
  const acceptance = new Acceptance(new Map());
  let applied = 0;
  const round = async () => {
    publisher.step(applied, acceptance.of("a".repeat(32)));
    if (publisher.open) {
      for (const size of [2_000, 10]) publisher.send({ frame: new Uint8Array(size), base: applied, last: true });
    }
    await settle();
    for (const { sequence, time, data } of stream.messages.slice(applied)) {
      const message = decodeMessage(data);
      publisher.observe({ sequence, time, data, message, verdict: acceptance.accept(message) });
      applied = sequence;
    }
  };
  for (let rounds = 0; rounds < 60; rounds++) await round();
  assert.match(publisher.failing ?? "", /message size exceeds maximum allowed/);
  assert.equal(log.entries.filter(({ level }) => level === "warn").length, 1);
  stream.limit = 10_000;
  for (let rounds = 0; rounds < 6; rounds++) await round();
  assert.equal(publisher.failing, undefined);
});
