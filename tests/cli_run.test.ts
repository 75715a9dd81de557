import assert from "node:assert/strict";
import { chmod, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import process from "node:process";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { EXIT } from "../src/errors.ts";
import { freePort, type NatsServer, natsServerFlags, startNatsServer } from "./support/nats.ts";
import { type Program, runProgram, startProgram } from "./support/process.ts";
import { marmotCommand } from "./support/runtime.ts";
import { unhurried } from "./support/slowdown.ts";
import { type TempFolder, tempFolder } from "./support/tmp.ts";

const STOP_LIMIT_MS = 2_000;
/** signals that are this far apart are two */
const SAME_STOP_MS = 550;

function environment(): Record<string, string | undefined> {
  return Object.fromEntries(
    Object.keys(process.env).filter((name) => name.startsWith("MARMOT_")).map((name) => [name, undefined]),
  );
}

function start(...argv: string[]): Promise<Program> {
  return startProgram([...marmotCommand(), ...argv], { env: environment() });
}

function run(...argv: string[]) {
  return runProgram([...marmotCommand(), ...argv], { env: environment() });
}

async function embedded(): Promise<string[]> {
  return ["--listen", `127.0.0.1:${await freePort()}`, ...await natsServerFlags()];
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  test(`${signal} stops a node and its embedded broker cleanly, within two seconds`, async () => {
    await using folder = await tempFolder();
    await using marmot = await start("-db-path", folder.file("my.db"), "-create", ...await embedded());
    await marmot.waitFor("connected");
    const pid = Number((await readFile(folder.file("my.db-marmot", "nats", "nats-server.pid"), "utf8")).trim());
    assert.ok(alive(pid));
    const took = await unhurried(async () => {
      marmot.signal(signal);
      assert.deepEqual(await marmot.exited, { code: EXIT.ok, signal: null }, marmot.output);
    });
    assert.ok(took < STOP_LIMIT_MS, marmot.output);
    assert.equal(alive(pid), false);
    assert.equal(marmot.stdout, "");
  });
}

/** A Marmot whose stop will take a while: it has something to publish, and its broker does not answer any more. */
async function slowToStop(folder: TempFolder, server: NatsServer): Promise<Program> {
  const marmot = await start("--db-path", folder.file("my.db"), "--create", "--nats-url", server.url);
  await marmot.waitFor("connected");
  server.freeze();
  const db = new DatabaseSync(folder.file("my.db"), { timeout: 5_000 });
  db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)");
  db.close();
  return marmot;
}

test("a signal that comes twice at once, as to a process group, is one", async () => {
  await using folder = await tempFolder();
  await using server = await startNatsServer();
  await using marmot = await slowToStop(folder, server);
  // Both are there when it goes on, however late that is.
  marmot.freeze();
  marmot.signal("SIGTERM");
  marmot.signal("SIGINT");
  marmot.signal("SIGCONT");
  assert.deepEqual(await marmot.exited, { code: EXIT.ok, signal: null }, marmot.output);
  assert.match(marmot.output, /kept and published at the next start/);
});

test("a second signal ends a stop that takes too long for whoever waits", async () => {
  await using folder = await tempFolder();
  await using server = await startNatsServer();
  await using marmot = await slowToStop(folder, server);
  marmot.signal("SIGTERM");
  await marmot.waitFor("Stopping");
  // Its stop does not come to an end before the second signal, however late that is.
  marmot.freeze();
  await sleep(SAME_STOP_MS);
  marmot.signal("SIGTERM");
  marmot.signal("SIGCONT");
  assert.deepEqual(await marmot.exited, { code: EXIT.failure, signal: null }, marmot.output);
  assert.match(marmot.output, /second signal/);
});

test("the log says how another node joins, and join-command says it again after the node has stopped", async () => {
  await using folder = await tempFolder();
  const dbPath = folder.file("it's my.db");
  const flags = await embedded();
  await using marmot = await start("--db-path", dbPath, "--create", "--exclude", "cache *", ...flags);
  const [, commands = ""] = await marmot.waitFor(/Another node joins this one with\n((?:marmot .*\n){2})/);
  await marmot.stop();
  const again = await run("join-command", "--db-path", dbPath);
  assert.equal(again.code, EXIT.ok);
  assert.equal(again.stdout, commands);
  assert.ok(commands.includes(`--nats-url nats://${flags[1]} --nats-credentials '`), commands);
  assert.ok(commands.includes("--exclude 'cache *'"), commands);
  const seed = (await readFile(`${dbPath}-marmot/credentials`, "utf8")).trim();
  assert.equal((marmot.output + again.stdout + again.stderr).includes(seed), false);
});

test("a JSON log is JSON to the last line, also of a start that fails", async () => {
  await using folder = await tempFolder();
  const { code, stderr } = await run("--db-path", folder.file("none.db"), "--log-format", "json");
  assert.equal(code, EXIT.database);
  const lines = stderr.trim().split("\n").map((line) => JSON.parse(line));
  assert.match(lines.at(-1).message, /^Cannot open .*none\.db: there is no such file/);
  assert.equal(lines.at(-1).level, "ERROR");
});

test("a first start without its NATS server ends with exit code 4, and says where it looked", async () => {
  await using folder = await tempFolder();
  const port = await freePort();
  const { code, stderr } = await run(
    "--db-path",
    folder.file("my.db"),
    "--create",
    "--nats-url",
    `nats://127.0.0.1:${port}`,
  );
  assert.equal(code, EXIT.broker, stderr);
  assert.match(stderr, new RegExp(`ERROR Cannot connect to NATS at 127\\.0\\.0\\.1:${port}: nothing listens there\\.`));
});

test("a first start without its NATS server leaves the database as it was", async () => {
  await using folder = await tempFolder();
  const dbPath = folder.file("my.db");
  const db = new DatabaseSync(dbPath);
  db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)");
  db.close();
  const before = await readFile(dbPath);
  const { code, stderr } = await run(
    "--db-path",
    dbPath,
    "--wal",
    "--nats-url",
    `nats://127.0.0.1:${await freePort()}`,
  );
  assert.equal(code, EXIT.broker, stderr);
  assert.deepEqual(await readFile(dbPath), before);
});

test("a password comes from its file, and a wrong one ends with exit code 4 without being shown", async () => {
  await using folder = await tempFolder();
  await using nats = await startNatsServer({ config: `authorization { user: joe, password: "right one" }` });
  const common = ["--db-path", folder.file("my.db"), "--create", "--nats-url", nats.url, "--nats-user", "joe"];
  const file = folder.file("password");
  await writeFile(file, "geheim\n");
  await chmod(file, 0o600);
  const refused = await run(...common, "--nats-password-file", file);
  assert.equal(refused.code, EXIT.broker, refused.stderr);
  assert.doesNotMatch(refused.stderr, /geheim/);

  const missing = await run(...common, "--nats-password-file", folder.file("none"));
  assert.equal(missing.code, EXIT.usage);
  assert.match(missing.stderr, /none: there is no such file\. Check the path given with --nats-password-file\.\n$/);

  await writeFile(file, "right one\n");
  await using marmot = await start(...common, "--nats-password-file", file);
  const [, commands = ""] = await marmot.waitFor(/Another node joins this one with\n((?:marmot .*\n){2})/);
  assert.ok(commands.includes(`--nats-user joe --nats-password-file ${file}`), commands);
  assert.doesNotMatch(marmot.output, /right one/);
});

test("a start that waits for a server which never answers is stopped at once", async () => {
  await using folder = await tempFolder();
  const silent = createServer();
  const called = new Promise((resolve) => silent.once("connection", resolve));
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  try {
    const address = silent.address();
    assert.ok(address !== null && typeof address !== "string");
    const url = `nats://127.0.0.1:${address.port}`;
    await using marmot = await start("--db-path", folder.file("my.db"), "--create", "--nats-url", url);
    await called;
    const took = await unhurried(async () => {
      marmot.signal("SIGTERM");
      assert.deepEqual(await marmot.exited, { code: EXIT.ok, signal: null }, marmot.output);
    });
    assert.ok(took < STOP_LIMIT_MS, marmot.output);
  } finally {
    silent.close();
  }
});
