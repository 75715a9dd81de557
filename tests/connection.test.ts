import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { openDatabase } from "../src/sqlite/connection.ts";

const CONNECTIONS = 300;
const HELD_BYTES = 1_000_000;

test("a closed connection lets go of what its functions held", () => {
  const before = process.memoryUsage().external;
  for (let i = 0; i < CONNECTIONS; i++) {
    const db = openDatabase(":memory:");
    const held = new Uint8Array(HELD_BYTES).fill(1);
    db.function("held", { varargs: false, deterministic: false }, () => BigInt(held.length));
    assert.deepEqual(db.prepare("SELECT held()").get(), [BigInt(HELD_BYTES)]);
    db.close();
  }
  assert.ok(process.memoryUsage().external - before < CONNECTIONS * HELD_BYTES / 2);
});

test("a function takes the place of an older one of its name", () => {
  const db = openDatabase(":memory:");
  const answer = () => db.prepare("SELECT answer()");
  db.function("answer", { varargs: false, deterministic: false }, () => 1n);
  const compiled = answer();
  db.function("answer", { varargs: false, deterministic: false }, () => 2n);
  assert.deepEqual([compiled.get(), answer().get()], [[2n], [2n]]);
  db.close();
});
