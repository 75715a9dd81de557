/** What a clone waits for before it is handed out: the entries that its copy had. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { pendingMarks, stillPending } from "../src/sqlite/change_log.ts";
import { corePair } from "./support/core_pair.ts";

test("a clone waits for what was pending in its copy, also when tables take other names meanwhile, and for nothing else", async () => {
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY); CREATE TABLE u(id INTEGER PRIMARY KEY)");
  const { a, b } = pair;
  await pair.converged();
  a.run("INSERT INTO t VALUES (1)");
  const { db } = a.node;
  const marks = pendingMarks(db);
  assert.equal(stillPending(db, marks), 1);
  for (const { app } of [a, b]) app.exec("ALTER TABLE t RENAME TO v; ALTER TABLE u RENAME TO t");
  a.node.install();
  assert.equal(stillPending(db, marks), 1);
  await pair.converged();
  assert.equal(stillPending(db, marks), 0);
  // with the number of the one that was waited for
  a.run("INSERT INTO v VALUES (2)");
  assert.equal(stillPending(db, marks), 0);
});
