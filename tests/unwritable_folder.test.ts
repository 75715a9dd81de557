import assert from "node:assert/strict";
import { mkdir, readFile, rm } from "node:fs/promises";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { startNatsServer } from "./support/nats.ts";
import { startProgram, within } from "./support/process.ts";
import { marmotCommand } from "./support/runtime.ts";
import { tempFolder } from "./support/tmp.ts";

const PROMPT_MS = 20_000;
const POLL_MS = 50;
/** what files are called until they are whole: a folder in that place is a file that can't be written */
const IN_THE_WAY = ["status.json.new", "join.json.new"];

async function until(what: string, check: () => Promise<boolean>): Promise<void> {
  const poll = async () => {
    while (!await check()) await sleep(POLL_MS);
  };
  await within(PROMPT_MS, poll(), () => `not yet: ${what}`);
}

test("a node goes on when nothing can be written beside its database, and catches up on it later", async () => {
  await using folder = await tempFolder();
  await using server = await startNatsServer();
  const path = folder.file("my.db");
  const place = (name: string) => folder.file("my.db-marmot", name);
  for (const name of IN_THE_WAY) await mkdir(place(name), { recursive: true });
  const db = new DatabaseSync(path, { timeout: PROMPT_MS });
  db.exec("PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v)");

  await using marmot = await startProgram([...marmotCommand(), "--db-path", path, "--nats-url", server.url]);
  await marmot.waitFor("connected");
  db.exec("INSERT INTO t VALUES (1, 'x')");
  const pending = db.prepare("SELECT count(*) AS entries FROM __marmot__t_change_log");
  await until("the row is published", () => Promise.resolve(pending.get()?.entries === 0));
  await marmot.waitFor("the status can't be written for now");
  assert.match(marmot.output, /join-command` will not know/);
  assert.doesNotMatch(marmot.output, /cannot go on/);

  for (const name of IN_THE_WAY) await rm(place(name), { recursive: true });
  const status = () => readFile(place("status.json"), "utf8").catch(() => "");
  await until("the status is written", async () => (await status()).includes('"publisher":"ready"'));
  db.close();
});
