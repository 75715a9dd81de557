import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { LimitedDisk } from "../support/disk.ts";
import { startNatsServer } from "../support/nats.ts";
import { startProgram, within } from "../support/process.ts";
import { marmotCommand } from "../support/runtime.ts";
import { skipTest } from "../support/skip.ts";
import { tempFolder } from "../support/tmp.ts";

const DISK_BYTES = 4 * 1024 * 1024;
const PROMPT_MS = 20_000;
const POLL_MS = 50;

function write(path: string, sql: string): void {
  const db = new DatabaseSync(path, { timeout: PROMPT_MS });
  db.exec(sql);
  db.close();
}

async function published(path: string): Promise<void> {
  const poll = async () => {
    for (;;) {
      const db = new DatabaseSync(path, { timeout: PROMPT_MS });
      const pending = db.prepare("SELECT count(*) AS entries FROM __marmot__t_change_log").get();
      db.close();
      if (pending?.entries === 0) return;
      await sleep(POLL_MS);
    }
  };
  await within(PROMPT_MS, poll(), () => "something is still pending");
}

test("a node whose disk is full waits, at its start and while it runs, and goes on once there is room", async (context) => {
  await using folder = await tempFolder();
  await using disk = await LimitedDisk.mount(folder.file("disk"), DISK_BYTES) ?? null;
  if (disk === null) return skipTest(context, "no file system of limited size can be mounted here");
  await using server = await startNatsServer();
  const path = `${disk.path}/my.db`;
  write(path, "PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  const command = [...marmotCommand(), "--db-path", path, "--nats-url", server.url];
  {
    await using first = await startProgram(command);
    await first.waitFor("connected");
    await first.stop();
  }
  write(path, "INSERT INTO t VALUES (1, 'while Marmot is down')");
  await disk.fill();
  await using marmot = await startProgram(command);
  await marmot.waitFor(/the disk .*: waiting/);
  await disk.free();
  await marmot.waitFor("connected");
  await published(path);

  marmot.freeze();
  // The WAL is empty then: an acknowledgement needs room.
  write(path, "INSERT INTO t VALUES (2, 'with room'); PRAGMA wal_checkpoint(TRUNCATE)");
  await disk.fill();
  marmot.signal("SIGCONT");
  await marmot.waitFor("cannot go on for now");
  const said = marmot.output.length;
  assert.throws(() => write(path, "INSERT INTO t VALUES (3, 'without room')"), /full|I\/O/);
  await disk.free();
  write(path, "INSERT INTO t VALUES (4, 'with room again')");
  await published(path);
  assert.doesNotMatch(marmot.output.slice(said), /ended|unexpected/);
});
