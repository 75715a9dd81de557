/** Watching a database must not take away the locks that SQLite holds on it. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { test } from "node:test";
import { openDatabase } from "../src/sqlite/connection.ts";
import { watchDatabase } from "../src/runtime/file_watcher.ts";
import { runProgram } from "./support/process.ts";
import { PROJECT, scriptCommand } from "./support/runtime.ts";
import { haveProgram } from "./support/skip.ts";
import { tempFolder } from "./support/tmp.ts";

/** Run in a user namespace of its own, whose limits it may set. */
const WITHOUT_WATCHES = 'echo 0 >/proc/sys/user/max_inotify_instances && exec "$@"';
const WAITS = 20;
const QUIET_MS = 300;

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

test("other files of the folder ring nothing", async () => {
  await using folder = await tempFolder();
  const path = folder.file("app.db");
  const db = openDatabase(path);
  db.exec("PRAGMA journal_mode = WAL; CREATE TABLE t (x)");
  const watcher = watchDatabase(path);
  while (await watcher.wait(QUIET_MS, AbortSignal.timeout(10_000))); // what the lines above left
  for (let i = 0; i < 20; i++) await writeFile(folder.file("application.log"), `line ${i}`, { flag: "a" });
  assert.equal(await watcher.wait(QUIET_MS, AbortSignal.timeout(10_000)), false);
  execFileSync("python3", ["-c", WRITE, path]);
  assert.equal(await watcher.wait(5_000, AbortSignal.timeout(10_000)), true);
  watcher.close();
  db.close();
});

test("a system that has no watches left is looked at every few milliseconds, and nothing else is held up", async (context) => {
  if (!await haveProgram(context, ["unshare", "-Ur", "sh", "-c", WITHOUT_WATCHES, "sh", "true"])) return;
  await using folder = await tempFolder();
  const path = folder.file("app.db");
  const script = folder.file("wait.ts");
  await writeFile(
    script,
    `import { watchDatabase } from ${JSON.stringify(`${PROJECT}src/runtime/file_watcher.ts`)};
     let ticks = 0;
     setInterval(() => ticks++, 1);
     const watcher = watchDatabase(${JSON.stringify(path)});
     let events = 0;
     for (let i = 0; i < ${WAITS}; i++) if (await watcher.wait(60_000, AbortSignal.timeout(60_000))) events++;
     console.log(JSON.stringify({ events, ticks }));
     process.exit();`,
  );
  const db = openDatabase(path);
  db.exec("PRAGMA journal_mode = WAL; CREATE TABLE t (x)");
  const command = [...scriptCommand("cli.ts").slice(0, -1), script];
  const { stdout, stderr } = await runProgram(["unshare", "-Ur", "sh", "-c", WITHOUT_WATCHES, "sh", ...command]);
  const { events, ticks } = JSON.parse(stdout || JSON.stringify({ stderr }));
  assert.ok(events <= 1, `${events} events without a watch`);
  assert.ok(ticks >= WAITS, `${ticks} ticks`);
  db.close();
});
