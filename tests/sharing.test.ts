import assert from "node:assert/strict";
import { test } from "node:test";
import { type Change, OP_INSERT } from "../src/change.ts";
import { SharedRanges } from "../src/sharing.ts";

const SHARDS = 4;

class Log {
  reads = 0;

  constructor(private readonly length: number, private readonly bytes = 8) {}

  readonly read = (): Change[] => {
    this.reads++;
    const values = [new Uint8Array(this.bytes)];
    return Array.from({ length: this.length }, (_, i) => ({ op: OP_INSERT, seq: i + 1, stamp: 0n, values }));
  };
}

const shardOf = ({ seq }: Change) => seq % SHARDS;

function seqs(shared: SharedRanges, shard: number, to: number, read: () => Change[]): number[] | undefined {
  return shared.of(shard, "t", 0, to, read, shardOf)?.map(({ seq }) => seq);
}

test("a range is read once for all shards, and each gets its own entries", () => {
  const [shared, entries] = [new SharedRanges(), new Log(9)];
  assert.deepEqual(seqs(shared, 1, 9, entries.read), [1, 5, 9]);
  assert.deepEqual(seqs(shared, 2, 9, entries.read), [2, 6]);
  assert.equal(entries.reads, 1);
});

test("shards that are one range behind the others share that one, too", () => {
  const [shared, entries] = [new SharedRanges(), new Log(8)];
  for (const to of [8, 6, 8, 6]) seqs(shared, 1, to, entries.read);
  assert.equal(entries.reads, 2);
});

test("a range goes on being shared when entries in it came back, and is read anew when its numbers are used again", () => {
  const [shared, entries] = [new SharedRanges(), new Log(8)];
  seqs(shared, 1, 8, entries.read);
  shared.acknowledged("t", 8);
  seqs(shared, 2, 8, entries.read);
  assert.equal(entries.reads, 1);
  shared.acknowledged("t", 7);
  seqs(shared, 3, 8, entries.read);
  assert.equal(entries.reads, 2);
});

test("what is too large to be held is read by each shard for itself, and is held again once there is room", () => {
  const [shared, large, small] = [new SharedRanges(), new Log(40, 256 * 1024), new Log(8)];
  assert.equal(seqs(shared, 1, 40, large.read), undefined);
  for (let i = 0; i < 3; i++) assert.deepEqual(seqs(shared, 1, 8 + i, small.read), [1, 5]);
});

test("a shard that goes on inside a range gets what is left of it", () => {
  const [shared, entries] = [new SharedRanges(), new Log(12)];
  seqs(shared, 1, 12, entries.read);
  assert.deepEqual(shared.of(1, "t", 5, 12, entries.read, shardOf)?.map(({ seq }) => seq), [9]);
  assert.equal(entries.reads, 1);
});
