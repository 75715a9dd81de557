import assert from "node:assert/strict";
import { test } from "node:test";
import type { Log } from "../src/runtime.ts";
import { digestOf, Subscriber } from "../src/subscribe.ts";
import { settle } from "./support/core_node.ts";
import { keptLog } from "./support/kept_log.ts";
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
  const subscriber = new Subscriber({ stream, clock, log, wake: () => {}, again: () => {} }, cursor, new Map());
  await subscriber.run(enough.signal);
  await settle();
  assert.match(subscriber.stopped?.reason ?? "", /version 99/);
  assert.deepEqual(said, ["shard stopped"]);
});

test("the same message that came again, behind others, is no sign that the stream is the same", async () => {
  const data = Uint8Array.of(1);
  const stream = new MemoryStream("changes-1");
  stream.messages.push({ sequence: 1, time: 2_000, data });
  const enough = new AbortController();
  const sleep = () => Promise.resolve(enough.abort(new Error("enough")));
  const log: Log = { debug() {}, info() {}, warn() {}, error() {} };
  const cursor = { sequence: 1, digest: digestOf(data), time: 1_000 };
  const subscriber = new Subscriber(
    { stream, clock: { now: () => 0, sleep }, log, wake: () => {}, again: () => {} },
    cursor,
    new Map(),
  );
  await subscriber.run(enough.signal);
  assert.match(subscriber.stopped?.reason ?? "", /holds another message at sequence 1/);
});

test("a stream that loses its tail just before a subscription begins is noticed", async () => {
  const old = Uint8Array.of(1);
  const stream = new MemoryStream("changes-1");
  const subscribe = stream.subscribe.bind(stream);
  stream.subscribe = (sequence) => {
    stream.messages.splice(0);
    for (const data of [Uint8Array.of(2), Uint8Array.of(3)]) {
      stream.messages.push({ sequence: stream.messages.length + 1, time: 0, data });
    }
    return subscribe(sequence);
  };
  stream.messages.push({ sequence: 1, time: 0, data: old });
  const enough = new AbortController();
  const sleep = () => Promise.resolve(enough.abort(new Error("enough")));
  const log: Log = { debug() {}, info() {}, warn() {}, error() {} };
  const cursor = { sequence: 1, digest: digestOf(old), time: 0 };
  const subscriber = new Subscriber(
    { stream, clock: { now: () => 0, sleep }, log, wake: () => {}, again: () => {} },
    cursor,
    new Map(),
  );
  await subscriber.run(enough.signal);
  assert.match(subscriber.stopped?.reason ?? "", /holds another message at sequence 1/);
  assert.equal(subscriber.received, 1);
});

test("a stream that can't be subscribed to, while the broker is there, is named, until it can", async () => {
  const stream = new MemoryStream("changes-1");
  const subscribe = stream.subscribe.bind(stream);
  const log = keptLog();
  let [tries, pauses] = [0, 0];
  // there is nothing to say then
  stream.connected = false;
  stream.subscribe = (sequence) =>
    tries++ < 30 ? Promise.reject(new Error("maximum consumers limit reached")) : subscribe(sequence);
  const said: (string | undefined)[] = [];
  const enough = new AbortController();
  const cursor = { sequence: 0, digest: null, time: 0 };
  const sleep = () => {
    said.push(subscriber.failing);
    stream.connected = ++pauses >= 5;
    return Promise.resolve();
  };
  const subscriber = new Subscriber(
    { stream, clock: { now: () => 0, sleep }, log, wake: () => {}, again: () => {} },
    cursor,
    new Map(),
  );
  const running = subscriber.run(enough.signal);
  while (tries <= 30) await settle();
  await settle();
  assert.equal(subscriber.failing, undefined);
  assert.equal(said.indexOf("nothing is received, and it is tried again: Error: maximum consumers limit reached"), 24);
  assert.equal(log.entries.filter(({ level }) => level === "warn").length, 1);
  enough.abort(new Error("enough"));
  await running;
});
