import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { EXIT } from "../src/errors.ts";
import { freePort, natsServerProgram } from "./support/nats.ts";
import { type Program, runProgram, startProgram } from "./support/process.ts";
import { marmotCommand, PROJECT, testedProgram } from "./support/runtime.ts";
import { haveProgram } from "./support/skip.ts";
import { type TempFolder, tempFolder } from "./support/tmp.ts";

const UNIT = join(PROJECT, "packaging", "marmot@.service");
const PROGRAM = "/usr/local/bin/marmot";
/** of 10, by systemd's own measure; a unit without any protection has 9.6 */
const EXPOSURE_LIMIT = 2.5;

/** A line of the unit, for the instance `shop`. */
async function setting(name: string): Promise<string> {
  const [, value = ""] = new RegExp(`^${name}=(.*)$`, "m").exec(await readFile(UNIT, "utf8")) ?? [];
  return value.replaceAll("%i", "shop");
}

async function listen(folder: TempFolder): Promise<Program> {
  const listener = await startProgram([
    "python3",
    join(PROJECT, "tests/support/notify_socket.py"),
    folder.file("notify"),
  ]);
  await listener.waitFor("listening");
  return listener;
}

/** Runs what the unit runs, with its files in `folder`. */
async function startService(folder: TempFolder, env: Record<string, string> = {}): Promise<Program> {
  await mkdir(folder.file("etc"), { recursive: true });
  const nats = testedProgram() === undefined ? `nats_server = "${await natsServerProgram()}"\n` : "";
  const listen = `listen = "127.0.0.1:${await freePort()}"\n`;
  await writeFile(
    folder.file("etc", "shop.toml"),
    `db_path = "${folder.file("shop.db")}"\ncreate = true\n${listen}${nats}`,
  );
  const words = (await setting("ExecStart")).split(" ").map((word) =>
    word.replace("/etc/marmot/", folder.file("etc/"))
  );
  assert.equal(words[0], PROGRAM);
  const [variable = "", value = ""] = (await setting("Environment")).split("=");
  return await startProgram([...marmotCommand(), ...words.slice(1)], {
    env: { [variable]: value.replace("%C", folder.file("cache")), NOTIFY_SOCKET: folder.file("notify"), ...env },
  });
}

test("what the unit runs tells systemd when it captures, and when it stops", async (context) => {
  if (!await haveProgram(context, ["systemd-notify", "--version"])) return;
  await using folder = await tempFolder();
  await using listener = await listen(folder);
  await using marmot = await startService(folder);
  await listener.waitFor(`READY=1 STATUS=Capturing ${folder.file("shop.db")}\n`);
  assert.match(marmot.output, /capturing/);
  assert.doesNotMatch(listener.output, /STOPPING/);
  assert.deepEqual(await marmot.stop(), { code: EXIT.ok, signal: null }, marmot.output);
  await listener.waitFor("STOPPING=1 STATUS=Stopping\n");
  assert.doesNotMatch(marmot.output, /systemd could not be told/);
});

test("a service manager that can't be told is one warning, and replication goes on", async () => {
  await using folder = await tempFolder();
  await using marmot = await startService(folder, { PATH: folder.path });
  await marmot.waitFor(/WARN +systemd could not be told/);
  await marmot.waitFor("connected");
  assert.deepEqual(await marmot.stop(), { code: EXIT.ok, signal: null }, marmot.output);
});

test("systemd finds nothing wrong with the unit, and calls it well protected", async (context) => {
  if (!await haveProgram(context, ["systemd-analyze", "--version"])) return;
  await using folder = await tempFolder();
  // It looks whether the program is there, and a test machine has none.
  const unit = folder.file("marmot@.service");
  await writeFile(unit, (await readFile(UNIT, "utf8")).replace(PROGRAM, "/bin/true"));
  const verified = await runProgram(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit]);
  assert.equal(verified.stdout + verified.stderr, "");
  assert.equal(verified.code, 0);
  const threshold = `--threshold=${EXPOSURE_LIMIT * 10}`;
  const security = await runProgram(["systemd-analyze", "security", "--no-pager", "--offline=true", threshold, unit]);
  assert.equal(security.code, 0, security.stdout + security.stderr);
});
