import assert from "node:assert/strict";
import { mkdir, stat, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { joinCommand, joinInfo, rememberJoin } from "../src/cli/join.ts";
import { loadConfig } from "../src/config/layers.ts";
import { EXIT, MarmotError } from "../src/errors.ts";
import { tempFolder } from "./support/tmp.ts";

function config(toml: string) {
  return loadConfig({ flags: {}, variables: {}, directory: "/w", file: { path: "/w/m.toml", text: toml } });
}

test("the commands that add a node are remembered beside the database, without any secret", async () => {
  await using folder = await tempFolder();
  const dbPath = folder.file("it's my.db");
  await writeFile(dbPath, "");
  await mkdir(`${dbPath}-marmot`);
  const embedded = { url: "nats://127.0.0.1:4333", credentialsFile: `${dbPath}-marmot/credentials` };
  rememberJoin(`${dbPath}-marmot`, joinInfo(config("shards = 4\nexclude = ['a b']"), embedded));
  const quoted = (name: string) => `'${folder.path}/it'\\''s my${name}'`;
  const { commands, notes } = joinCommand(config(""), dbPath);
  assert.deepEqual(commands.split("\n"), [
    `marmot clone --db-path ${quoted(".db")} --to ${quoted("-2.db")}`,
    `marmot --db-path ${quoted("-2.db")} --exclude 'a b' --shards 4 --nats-url nats://127.0.0.1:4333 ` +
    `--nats-credentials ${quoted(".db-marmot/credentials")}`,
  ]);
  assert.equal(notes.length, 2);
  assert.equal((await stat(`${dbPath}-marmot/join.json`)).mode & 0o777, 0o600);
});

test("with a NATS server of one's own the same commands name it, and never a password", () => {
  const toml = `nats_url = ["nats://joe:geheim@a:1", "b"]\nretention_age = "30d"\nretention_bytes = "1GiB"\nwal = true`;
  const { commands, notes } = joinCommand(config(toml), "/data/my.db");
  assert.deepEqual(commands.split("\n"), [
    "marmot clone --db-path /data/my.db --to /data/my-2.db",
    "marmot --db-path /data/my-2.db --retention-age 30d --retention-bytes 1GiB --nats-url nats://a:1 --nats-url b " +
    "--nats-user joe",
  ]);
  assert.deepEqual(notes, ["Set MARMOT_NATS_PASSWORD there to the same secret as here."]);
});

test("a database that no Marmot ran on has no join command yet", async () => {
  await using folder = await tempFolder();
  const ask = () => joinCommand(config(""), folder.file("my.db"));
  assert.throws(ask, (error) => error instanceof MarmotError && error.exitCode === EXIT.database);
  await writeFile(folder.file("my.db"), "");
  assert.throws(ask, /no Marmot has run on it yet\. Start it first: marmot --db-path /);
});
