import assert from "node:assert/strict";
import { test } from "node:test";
import type { Delivery } from "../src/acceptance.ts";
import { fromTurn, inTurn } from "../src/queues.ts";

function delivery(sequence: number, part = 1, last = true, accepted = true): Delivery {
  const header = { origin: "a", nonce: "n", epoch: 1, number: sequence, base: 0, part, last, continues: false };
  const message = { ...header, frame: new Uint8Array(0) };
  const verdict = accepted ? { accepted, seen: header, newEpoch: false } : { accepted, seen: undefined };
  return { sequence, time: 0, data: new Uint8Array(0), message, verdict } as Delivery;
}

function taken(...queues: Delivery[][]): string[] {
  return [...inTurn(fromTurn(queues, 0))].map(([shard, { sequence }]) => `${shard}:${sequence}`);
}

test("messages of all shards come in turn, each shard's in order", () => {
  const three = [delivery(1), delivery(2), delivery(3)];
  assert.deepEqual(taken(three, [], [delivery(7)]), ["0:1", "2:7", "0:2", "0:3"]);
});

test("the shard whose turn it is comes first, and one that has nothing is passed over", () => {
  const queues = [[delivery(1)], [], [delivery(3)], [delivery(4)]];
  assert.deepEqual([...fromTurn(queues, 1).keys()], [2, 3, 0]);
  assert.deepEqual([...fromTurn(queues, 4).keys()], [0, 2, 3]);
});

test("a batch in several parts takes effect as the first of a transaction only, and its shard waits until then", () => {
  const ends = delivery(9, 2);
  assert.deepEqual(taken([delivery(1)], [ends, delivery(10)]), ["0:1"]);
  assert.deepEqual(taken([ends, delivery(10)], [delivery(1)]), ["0:9", "1:1", "0:10"]);
  assert.deepEqual(taken([delivery(1)], [delivery(8, 1, false), ends]), ["0:1", "1:8"], "parts before it are stored");
  assert.deepEqual(taken([delivery(1)], [delivery(9, 2, true, false)]), ["0:1", "1:9"], "dropped, it has no effect");
});
