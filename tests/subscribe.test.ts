import assert from "node:assert/strict";
import { test } from "node:test";
import type { Log } from "../src/runtime.ts";
import { Subscriber } from "../src/subscribe.ts";
import { settle } from "./support/core_node.ts";
import { MemoryStream } from "./support/memory_stream.ts";

test("a shard that met an unreadable message stays stopped, and says so once", async () => {
  const stream = new MemoryStream("changes-1");
  stream.direct = true;
  void stream.publish(Uint8Array.of(99, 1, 2, 3));
  const said: string[] = [];
  const log: Log = { debug() {}, info() {}, warn() {}, error: (message) => said.push(message) };
  let pauses = 0;
  const enough = new AbortController();
  const sleep = () => {
    if (++pauses === 3) enough.abort(new Error("enough"));
    return Promise.resolve();
  };
  const clock = { now: () => 0, sleep };
  const cursor = { sequence: 0, digest: null, time: 0 };
  const subscriber = new Subscriber({ stream, clock, log, wake: () => {} }, cursor, new Map());
  await subscriber.run(enough.signal);
  await settle();
  assert.match(subscriber.stopped?.reason ?? "", /version 99/);
  assert.deepEqual(said, ["shard stopped"]);
});
