import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { chmod, chown, mkdir, rm, stat, symlink, writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { EXIT } from "../src/errors.ts";
import { openDatabase } from "../src/sqlite/connection.ts";
import { install } from "../src/sqlite/install.ts";
import { createOwnTables } from "../src/sqlite/own_tables.ts";
import { App } from "./support/app.ts";
import { type Finished, runProgram } from "./support/process.ts";
import { marmotCommand } from "./support/runtime.ts";
import { tempFolder } from "./support/tmp.ts";

/** Runs Marmot with no MARMOT_* variables but the given ones. */
async function marmot(argv: string[], options: { cwd?: string; env?: Record<string, string> } = {}): Promise<Finished> {
  const cleared = Object.keys(process.env).filter((name) => name.startsWith("MARMOT_")).map((
    name,
  ) => [name, undefined]);
  return await runProgram([...marmotCommand(), ...argv], {
    ...options,
    env: { ...Object.fromEntries(cleared), ...options.env },
  });
}

test("the help is printed on stdout, and so are the versions", async () => {
  const help = await marmot(["--help"]);
  assert.equal(help.code, EXIT.ok);
  assert.match(help.stdout, /^Usage: marmot --db-path FILE/);
  assert.equal(help.stderr, "");
  const { stdout, code } = await marmot(["-version"]);
  assert.equal(code, EXIT.ok);
  assert.match(
    stdout,
    /^marmot \d+\.\d+\.\d+\n(deno|bun) \d+\.\d+\.\d+\nSQLite 3\.\d+\.\d+\nnats-server 2\.\d+\.\d+ .*\n$/,
  );
});

test("a wrong command line ends with exit code 2 and one line on stderr that says what to do", async () => {
  for (
    const argv of [["--db-pth", "x"], ["status", "my.db"], ["--db-path"], ["--db-path=x", "--shards=0"], [], ["status"]]
  ) {
    const { code, stdout, stderr } = await marmot(argv);
    assert.equal(code, EXIT.usage, argv.join(" "));
    assert.equal(stdout, "");
    assert.match(stderr, /^(marmot: |\S+Z ERROR )Cannot [^\n]+\n$/);
  }
});

test("a database that isn't named is asked for", async () => {
  const { code, stderr } = await marmot(["join-command"]);
  assert.equal(code, EXIT.usage);
  assert.match(stderr, /Give --db-path FILE, the variable MARMOT_DB_PATH, or db_path/);
});

test("a TOML file with an error is refused with its line and column, and all wrong settings at once", async () => {
  await using folder = await tempFolder();
  await writeFile(folder.file("m.toml"), `db_path = "my.db"\nshards = = 1\n`);
  const broken = await marmot(["--config", "m.toml"], { cwd: folder.path });
  assert.equal(broken.code, EXIT.usage);
  assert.match(broken.stderr, /^marmot: Cannot read m\.toml, line 2, column 10: /);

  await writeFile(folder.file("m.toml"), `db_path = "my.db"\nshards = 0\nretantion_age = "7d"\n`);
  const wrong = await marmot([], { cwd: folder.path, env: { MARMOT_CONFIG: "m.toml", MARMOT_LOG_LEVEL: "loud" } });
  assert.equal(wrong.code, EXIT.usage);
  assert.match(wrong.stderr, /shards = 0 in m\.toml, line 2, column 1: it must be a whole number from 1 to 256\.\n/);
  assert.match(wrong.stderr, /retantion_age in m\.toml, line 3, column 1: .* Did you mean retention_age\?\n/);
  assert.match(wrong.stderr, /the variable MARMOT_LOG_LEVEL=loud: it must be one of debug, info, warn, error\.\n/);
});

test("a configuration file that can't be read is named", async () => {
  await using folder = await tempFolder();
  await writeFile(folder.file("latin1.toml"), new Uint8Array([0x23, 0xe9]));
  const states = { "none.toml": "there is no such file", ".": "it is a folder", "latin1.toml": "it is not UTF-8" };
  for (const [name, state] of Object.entries(states)) {
    const { code, stderr } = await marmot(["config", "--config", name], { cwd: folder.path });
    assert.equal(code, EXIT.usage);
    assert.match(stderr, new RegExp(`^marmot: Cannot read .*: ${state}\\. Check the path given with --config\\.\n$`));
  }
});

test("marmot config prints what is in effect, hides secrets, and its output is a configuration again", async () => {
  await using folder = await tempFolder();
  await writeFile(folder.file("m.toml"), `nats_url = "nats://a"\nnats_user = "joe"\nnats_password = "geheim"\n`, {
    mode: 0o600,
  });
  const env = { MARMOT_DB_PATH: "my.db" };
  const first = await marmot(["config", "--config", "m.toml", "--wal"], { cwd: folder.path, env });
  assert.equal(first.code, EXIT.ok);
  assert.equal(first.stderr, "");
  assert.doesNotMatch(first.stdout, /geheim/);
  assert.match(first.stdout, /^wal = true # --wal$/m);
  assert.ok(first.stdout.includes(`db_path = "${folder.file("my.db")}" # MARMOT_DB_PATH`));

  await writeFile(folder.file("again.toml"), first.stdout);
  const secret = { MARMOT_NATS_PASSWORD: "geheim" };
  const second = await marmot(["config", "--config", "again.toml"], { cwd: folder.path, env: secret });
  const values = (text: string) =>
    text.split("\n").map((line) => line.replace(/ # .*/, "")).filter((line) => !/^#/.test(line));
  assert.deepEqual(values(second.stdout), values(first.stdout));
});

test("marmot config --template prints docs/config.toml", async () => {
  const { stdout, code } = await marmot(["config", "--template"]);
  assert.equal(code, EXIT.ok);
  assert.match(stdout, /^#shards = 1$/m);
});

test("a password that others can read gives a warning", async () => {
  await using folder = await tempFolder();
  const file = folder.file("m.toml");
  await writeFile(file, `nats_url = "nats://a"\nnats_user = "joe"\nnats_password = "geheim"\n`);
  await chmod(file, 0o644);
  const open = await marmot(["config", "--config", file]);
  assert.equal(open.code, EXIT.ok);
  assert.match(
    open.stderr,
    /m\.toml holds a secret, and other users can read it\. Make it yours alone: chmod 600 it\.\n$/,
  );
  await chmod(file, 0o600);
  assert.equal((await marmot(["config", "--config", file])).stderr, "");

  const flag = await marmot(["config", "--nats-url", "nats://joe:geheim@a"]);
  assert.match(flag.stderr, /A password in --nats-url can be read by every process/);
  assert.doesNotMatch(flag.stdout + flag.stderr, /geheim/);
});

test("a join command is not made up for a database no Marmot has run on", async () => {
  await using folder = await tempFolder();
  await writeFile(folder.file("my.db"), "");
  const { code, stderr } = await marmot(["join-command", "--db-path", folder.file("my.db")]);
  assert.equal(code, EXIT.usage);
  assert.match(stderr, /no Marmot has run on it yet/);
});

test("status reads a database whose application was killed in the middle of a transaction", async () => {
  await using folder = await tempFolder();
  const path = folder.file("my.db");
  {
    // killed at the end of this block
    await using app = await App.start(path);
    await app.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    // so that pages are written before the commit, and the rollback journal is needed
    await app.run("PRAGMA cache_size = 5");
    await app.run("BEGIN");
    await app.run(
      "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 1000) INSERT INTO t SELECT x, hex(randomblob(200)) FROM n",
    );
  }
  assert.ok(existsSync(`${path}-journal`));
  const { code, stdout, stderr } = await marmot(["status", "--db-path", path]);
  assert.equal(code, EXIT.ok, stderr);
  assert.match(stdout, /my\.db/);
});

test("a command that meets a lock says so, and that it may be tried again", async () => {
  await using folder = await tempFolder();
  const path = folder.file("my.db");
  await using app = await App.start(path);
  await app.run("CREATE TABLE t(id INTEGER PRIMARY KEY)");
  await app.run("BEGIN EXCLUSIVE");
  for (const argv of [["status"], ["clone", "--to", folder.file("copy.db")], ["--cleanup"]]) {
    const { code, stderr } = await marmot([...argv, "--db-path", path]);
    assert.equal(code, EXIT.database, stderr);
    assert.match(stderr, /^marmot: Cannot use .*my\.db: another process holds its lock\. Try again [^\n]+\n$/);
  }
});

test("a clone is nothing that was not there before: no older WAL, no more readers, and no half of a path", async () => {
  await using folder = await tempFolder();
  const [from, to] = [folder.file("my.db"), folder.file("other.db")];
  const source = openDatabase(from);
  source.exec("PRAGMA journal_mode = WAL; CREATE TABLE t(id TEXT PRIMARY KEY); INSERT INTO t VALUES ('one')");
  const tables = { patterns: { include: [], exclude: [] }, rowidTables: false, backfill: false };
  install(source, { ...tables, newNodeId: () => "a".repeat(32), scanned: () => 0 });
  source.close();
  await chmod(from, 0o600);
  const clone = (...argv: string[]) => marmot(["clone", "--db-path", from, ...argv], { cwd: folder.path });
  await writeFile(`${to}-wal`, "of a database that was removed");
  const refused = await clone("--to", to);
  assert.equal(refused.code, EXIT.refused, refused.stderr);
  assert.match(refused.stderr, /other\.db-wal exists/);
  await rm(`${to}-wal`);
  const lost = await clone("--to", folder.file("no", "such.db"));
  assert.equal(lost.code, EXIT.database, lost.stderr);
  assert.match(lost.stderr, /^marmot: Cannot make .*such\.db.* Check the folder/);
  for (const name of [to, "file:third.db?mode=memory"]) {
    const made = await clone("--to", name);
    assert.equal(made.code, EXIT.ok, made.stderr);
    const path = resolve(folder.path, name);
    assert.equal((await stat(path)).mode & 0o777, 0o600);
    const copy = openDatabase(path);
    assert.equal(copy.prepare("SELECT id FROM t").get()![0], "one");
    copy.close();
  }
});

test("a clone of a backup that nobody may write to can be written to, and not be read by another group", async () => {
  await using folder = await tempFolder();
  const [from, to] = [folder.file("backup.db"), folder.file("my.db")];
  const source = openDatabase(from);
  createOwnTables(source, new Map());
  source.close();
  await chmod(from, 0o440);
  const made = await marmot(["clone", "--db-path", from, "--to", to]);
  assert.equal(made.code, EXIT.ok, made.stderr);
  assert.equal((await stat(to)).mode & 0o777, 0o640);
  if (process.getuid?.() !== 0) return;
  // a group that the copy does not have
  await chown(from, 0, 1);
  const other = await marmot(["clone", "--db-path", from, "--to", `${to}2`]);
  assert.equal(other.code, EXIT.ok, other.stderr);
  assert.equal((await stat(`${to}2`)).mode & 0o777, 0o600);
});

test("status is told although a power cut left nothing of the file that a running node writes", async () => {
  await using folder = await tempFolder();
  await writeFile(folder.file("my.db"), "");
  await mkdir(folder.file("my.db-marmot"));
  await writeFile(folder.file("my.db-marmot", "status.json"), "");
  const { code, stdout, stderr } = await marmot(["status", "--db-path", folder.file("my.db")]);
  assert.equal(code, EXIT.ok, stderr);
  assert.match(stdout, /not running/);
  const json = await marmot(["status", "--json", "--db-path", folder.file("my.db")]);
  const { node, broker, shards } = JSON.parse(json.stdout);
  assert.deepEqual({ node, broker, shards }, { node: null, broker: null, shards: [] });
});

test("who can't see whether a Marmot runs is not told that none does", async () => {
  await using folder = await tempFolder();
  await writeFile(folder.file("my.db"), "");
  // as unreadable as a folder of another user, for root as well
  await symlink("my.db-marmot", folder.file("my.db-marmot"));
  for (const argv of [["status"], ["--cleanup"]]) {
    const { code, stderr } = await marmot([...argv, "--db-path", folder.file("my.db")]);
    assert.equal(code, EXIT.database, stderr);
    assert.match(stderr, /^marmot: Cannot tell whether a Marmot runs on /);
  }
});
