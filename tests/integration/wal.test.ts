import assert from "node:assert/strict";
import { clusterTests } from "../support/cluster.ts";

const COMMITS = 4_000;
/** A WAL that is never begun anew grows by so many pages with each of them, and more */
const PAGES_PER_COMMIT = 4;
const PAGE_BYTES = 4_096;

const test = clusterTests();

test("the WAL stays small under a writer that never pauses", async ({ a, b, schema, converged }) => {
  await schema("CREATE TABLE restless(id INTEGER PRIMARY KEY, v BLOB)");
  const largest = await a.app.python(`
import os
result = 0
for i in range(${COMMITS}):
    db.execute("BEGIN IMMEDIATE")
    for row in range(20): db.execute("INSERT INTO restless VALUES (?, randomblob(200))", (i * 20 + row,))
    db.execute("COMMIT")
    if i % 20 == 0: result = max(result, os.path.getsize(${JSON.stringify(`${a.app.path}-wal`)}))`);
  assert.ok(Number(largest) < COMMITS * PAGES_PER_COMMIT * PAGE_BYTES / 2, `${largest} bytes`);
  await converged();
  assert.equal(await b.app.value("SELECT count(*) FROM restless"), 20 * COMMITS);
});
