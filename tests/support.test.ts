import assert from "node:assert/strict";
import { access } from "node:fs/promises";
import process, { execPath } from "node:process";
import { test } from "node:test";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { startNatsServer } from "./support/nats.ts";
import { runProgram, startProgram } from "./support/process.ts";
import { scriptCommand } from "./support/runtime.ts";
import { skipTest } from "./support/skip.ts";
import { tempFolder } from "./support/tmp.ts";

test("a test's nats-server keeps its streams when it is killed and started again", async () => {
  await using server = await startNatsServer();
  const before = await connect({ servers: server.url });
  await (await jetstreamManager(before)).streams.add({ name: "kept", subjects: ["kept"] });
  await before.close();
  await server.kill();
  assert.equal(server.pid, 0);
  await server.restart();
  const after = await connect({ servers: server.url });
  const info = await (await jetstreamManager(after)).streams.info("kept");
  assert.equal(info.config.name, "kept");
  await after.close();
});

test("a test's nats-server takes more configuration, and says why it ends at start", async () => {
  await using server = await startNatsServer({ config: "authorization { user: u, password: p }", jetstream: false });
  await assert.rejects(connect({ servers: server.url }), /Authorization/i);
  const connection = await connect({ servers: server.url, user: "u", pass: "p" });
  await connection.close();
  await assert.rejects(startNatsServer({ config: "no such thing" }), /nats-server ended at start/);
});

test("a folder of a test is gone after it", async () => {
  let path: string;
  {
    await using folder = await tempFolder();
    path = folder.path;
    await access(path);
  }
  await assert.rejects(access(path));
});

test("output of a program is awaited, and its end is told", async () => {
  const count = "let n = 0; setInterval(() => console.log('line', ++n), 5);";
  await using program = await startProgram([execPath, ...(evalArguments(count))]);
  const match = await program.waitFor(/line (3)/);
  assert.equal(match[1], "3");
  const exit = await program.kill();
  assert.equal(exit.signal, "SIGKILL");
  await assert.rejects(program.waitFor("never"), /ended before it printed/);
  await assert.rejects(startProgram(["/no/such/program"]));
});

test("scripts run on the runtime of the test", async () => {
  const found = await runProgram([...scriptCommand("scripts/nats_server.ts")]);
  assert.equal(found.code, 0, found.stderr);
  assert.match(found.stdout, /nats-server/);
});

test("a skip fails where everything is required", () => {
  const before = process.env.MARMOT_REQUIRE_ALL;
  process.env.MARMOT_REQUIRE_ALL = "1";
  try {
    assert.throws(() => skipTest({ name: "x", skip: () => {} }, "no sqlite3"), /no sqlite3/);
  } finally {
    if (before === undefined) delete process.env.MARMOT_REQUIRE_ALL;
    else process.env.MARMOT_REQUIRE_ALL = before;
  }
});

function evalArguments(script: string): string[] {
  return process.versions.bun === undefined ? ["eval", script] : ["-e", script];
}
