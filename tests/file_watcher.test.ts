/** Watching a database must not take away the locks that SQLite holds on it. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { openDatabase } from "../src/sqlite/connection.ts";
import { watchDatabase } from "../src/runtime/file_watcher.ts";
import { tempFolder } from "./support/tmp.ts";

const WRITE = `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
for i in range(20): db.execute("INSERT INTO t VALUES (?)", (i,))
db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
for i in range(20): db.execute("INSERT INTO t VALUES (?)", (i,))
db.close()
`;

test("a watched database keeps its WAL when an application closes it, and its commits are seen", async () => {
  await using folder = await tempFolder();
  const path = folder.file("app.db");
  const db = openDatabase(path);
  db.exec("PRAGMA journal_mode = WAL");
  db.exec("CREATE TABLE t (x)");
  const watcher = watchDatabase(path);
  const count = db.prepare("SELECT count(*) FROM t");
  for (let round = 1; round <= 3; round++) {
    execFileSync("python3", ["-c", WRITE, path]);
    assert.equal(await watcher.wait(5_000, AbortSignal.timeout(10_000)), true);
    assert.ok(existsSync(`${path}-wal`), "the WAL was deleted under an open connection");
    assert.equal(count.get()![0], BigInt(40 * round));
  }
  watcher.close();
  db.close();
});
