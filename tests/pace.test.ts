import assert from "node:assert/strict";
import { test } from "node:test";
import type { Delivery } from "../src/acceptance.ts";
import { AcknowledgingPace, ReadingPace } from "../src/pace.ts";
import type { Queues } from "../src/queues.ts";

const OWN_BYTES = 100;
/** Longer than an application that waits for it would notice, and long enough to bring many together */
const [LEAST_MS, MOST_MS] = [20, 200];

function queues(...shards: (readonly ("own" | "foreign")[])[]): Queues {
  const delivery = (origin: string) =>
    ({ data: new Uint8Array(OWN_BYTES), message: { origin } }) as unknown as Delivery;
  return new Map(shards.map((origins, shard) => [shard, origins.map(delivery)]));
}

const isOwn = (_: number, { message }: Delivery) => message.origin === "own";

test("what only acknowledges is taken together, a moment later", () => {
  const pace = new AcknowledgingPace();
  const wait = pace.wait(1_000, queues(["own"]), isOwn);
  assert.ok(wait >= LEAST_MS && wait <= MOST_MS, `${wait} ms`);
  assert.equal(pace.wait(1_000 + wait - 1, queues(["own", "own"], ["own"]), isOwn), 1);
  assert.equal(pace.wait(1_000 + wait, queues(["own", "own"], ["own"]), isOwn), 0);
});

test("where a lock is in the way, what waited long enough is tried whenever it can be", () => {
  const pace = new AcknowledgingPace();
  const wait = pace.wait(1_000, queues(["own"]), isOwn);
  for (let later = wait; later < 10 * wait; later++) assert.equal(pace.wait(1_000 + later, queues(["own"]), isOwn), 0);
  pace.applied();
  assert.equal(pace.wait(1_000 + 10 * wait, queues(["own"]), isOwn), wait);
});

test("rows of other nodes wait for nothing, and what was waiting goes with them", () => {
  const pace = new AcknowledgingPace();
  assert.ok(pace.wait(1_000, queues(["own"]), isOwn) > 0);
  assert.equal(pace.wait(1_001, queues(["own"], ["own", "foreign"]), isOwn), 0);
});

test("much to acknowledge does not wait for more", () => {
  const many = Array.from({ length: 1_000 }, () => "own" as const);
  assert.equal(new AcknowledgingPace().wait(1_000, queues(many), isOwn), 0);
  const few = queues(["own"]);
  const large = { data: new Uint8Array(10_000_000), message: { origin: "own" } } as unknown as Delivery;
  assert.equal(new AcknowledgingPace().wait(1_000, new Map([...few, [1, [large]]]), isOwn), 0);
});

test("pauses between snapshots are as long as these: short ones together, long ones each", () => {
  let now = 1_000;
  const pace = new ReadingPace(() => now);
  const snapshot = (ms: number) => pace.read(() => now += ms);
  for (let short = 0; short < 100; short++, now += 1) snapshot(1);
  assert.ok(pace.after <= now);
  snapshot(40);
  assert.equal(pace.after, now + 40);
  now += 30;
  snapshot(20);
  assert.equal(pace.after, now + 30);
  now += 30;
  for (let short = 0; pace.after <= now; short++, now += 0.5) {
    assert.ok(short < 100);
    snapshot(1);
  }
  assert.ok(pace.after - now > 1);
});
