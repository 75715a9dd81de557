import assert from "node:assert/strict";
import { test } from "node:test";
import type { SqlValue } from "../src/change.ts";
import { PendingIndex } from "../src/sqlite/pending_index.ts";
import { corePair } from "./support/core_pair.ts";

test("an entry that has a used number is not taken for what the older one was about", async () => {
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE)");
  const { a } = pair;
  const { db, installed, targets } = a.node;
  const log = targets.logs.get("t")!;
  const index = new PendingIndex(db, installed.captured.get("t")!, log, "UTF-8");
  const around = (...row: SqlValue[]) => {
    while (!index.step());
    return [...index.closure(new Set(index.hashesOf(row)))].map(({ seq }) => seq);
  };
  a.run("INSERT INTO t VALUES (1, 10), (2, 20), (3, 30)");
  assert.deepEqual(around(2n, 20n), [2]);

  log.deleteSeqs([2, 3]);
  index.acknowledged(log.highest());
  a.run("INSERT INTO t VALUES (4, 40); UPDATE t SET v = 41 WHERE id = 4");
  assert.deepEqual(around(4n, 41n), [2, 3]);
  assert.deepEqual(around(2n, 20n), []);
});

test("entries that a transaction deleted are found again when it was undone", async () => {
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  const { a } = pair;
  const { db, installed, targets } = a.node;
  const log = targets.logs.get("t")!;
  const index = new PendingIndex(db, installed.captured.get("t")!, log, "UTF-8");
  const count = 52_000;
  a.run(
    `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${count}) INSERT INTO t SELECT i, i FROM n`,
  );
  const oldest = () => {
    while (!index.step());
    return [...index.lastOf([[1n]])].map(({ seq }) => seq);
  };
  assert.deepEqual(oldest(), [1]);
  db.exec(`BEGIN; DELETE FROM __marmot__t_change_log WHERE seq < ${count}`);
  assert.deepEqual(oldest(), []);
  db.exec("ROLLBACK");
  assert.deepEqual(oldest(), [1]);
});
