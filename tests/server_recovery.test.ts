import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import process from "node:process";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { connectAs, ownAddress, startEmbedded } from "./support/embedded.ts";
import { natsServerProgram } from "./support/nats.ts";
import { freezeProcess, startProgram } from "./support/process.ts";
import { scriptCommand } from "./support/runtime.ts";
import { unhurried } from "./support/slowdown.ts";
import { tempFolder } from "./support/tmp.ts";

const GONE_TIMEOUT_MS = 10_000;
const STOP_LIMIT_MS = 1_000;
const POLL_MS = 10;

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function gone(pid: number): Promise<void> {
  const deadline = Date.now() + GONE_TIMEOUT_MS;
  while (isAlive(pid)) {
    assert.ok(Date.now() < deadline, `process ${pid} still runs`);
    await sleep(POLL_MS);
  }
}

function running(pid: number | undefined): number {
  assert.ok(pid !== undefined && isAlive(pid), "the broker is down");
  return pid;
}

test("a broker that is killed is started again at the same address, with its messages", async () => {
  await using folder = await tempFolder();
  await using embedded = await startEmbedded({ folder: folder.file("my.db-marmot"), listen: await ownAddress() });
  const { server, log } = embedded;
  await using client = await connectAs(server.url, server.credentialsFile);
  await client.manager.streams.add({ name: "s", subjects: ["s"] });
  for (let sequence = 1; sequence <= 3; sequence++) {
    assert.equal((await client.jetstream.publish("s", "x")).seq, sequence);
    const before = log.lines.length;
    const pid = running(server.pid);
    const reconnected = (async () => {
      for await (const status of client.connection.status()) if (status.type === "reconnect") return;
    })();
    process.kill(pid, "SIGKILL");
    await log.told(/error The embedded broker ended, and is started again how=signal SIGKILL/, before);
    await log.told(/info The embedded broker runs again/, before);
    assert.notEqual(running(server.pid), pid);
    assert.equal(server.restarts, sequence);
    await reconnected;
  }
});

test("a broker that can't be started again is tried until it can", async () => {
  await using folder = await tempFolder();
  const program = folder.file("nats-server");
  await symlink(await natsServerProgram(), program);
  await using embedded = await startEmbedded({
    folder: folder.file("my.db-marmot"),
    listen: await ownAddress(),
    program,
  });
  await rename(program, folder.file("away"));
  process.kill(running(embedded.server.pid), "SIGKILL");
  await embedded.log.told(/warn The embedded broker could not be started again; another try follows reason=/);
  assert.equal(embedded.server.pid, undefined);
  await rename(folder.file("away"), program);
  await embedded.log.told(/info The embedded broker runs again/);
  running(embedded.server.pid);
});

test("a broker ends with its Marmot, also when that is killed", async () => {
  await using folder = await tempFolder();
  const command = [...scriptCommand("tests/support/embedded_program.ts"), folder.file("my.db-marmot")];
  await using marmot = await startProgram([...command, await natsServerProgram()]);
  const [, pid = ""] = await marmot.waitFor(/broker (\d+)/);
  running(Number(pid));
  await marmot.kill();
  await gone(Number(pid));
});

test("a broker left over by a Marmot that was killed is stopped before another one starts on its store", async () => {
  await using folder = await tempFolder();
  const options = { folder: folder.file("my.db-marmot"), listen: await ownAddress() };
  await (await startEmbedded(options)).server.stop();
  const configuration = folder.file("my.db-marmot", "nats", "nats-server.conf");
  await using leftover = await startProgram([await natsServerProgram(), "-c", configuration]);
  // It may not get to answer SIGTERM.
  leftover.freeze();
  await using embedded = await startEmbedded(options);
  await embedded.log.told(new RegExp(`warn Stopping a broker that an earlier Marmot .* pids=${leftover.pid}`));
  await leftover.exited;
  running(embedded.server.pid);
});

test("a process that has the number of an old broker is left alone", async () => {
  await using folder = await tempFolder();
  await using bystander = await startProgram(["sleep", "1000"]);
  await mkdir(folder.file("my.db-marmot", "nats"), { recursive: true });
  await writeFile(folder.file("my.db-marmot", "nats", "nats-server.pid"), String(bystander.pid));
  await writeFile(folder.file("my.db-marmot", "nats", `nats-server_${bystander.pid}.ports`), `{"nats":["nats://x:1"]}`);
  await using embedded = await startEmbedded({ folder: folder.file("my.db-marmot"), listen: await ownAddress() });
  assert.notEqual(running(embedded.server.pid), bystander.pid);
  assert.ok(isAlive(bystander.pid));
});

test("stopping takes less than a second, of a broker that hangs too", async () => {
  for (const hangs of [false, true]) {
    await using folder = await tempFolder();
    await using embedded = await startEmbedded({ folder: folder.file("my.db-marmot"), listen: await ownAddress() });
    const pid = running(embedded.server.pid);
    if (hangs) freezeProcess(pid);
    const took = await unhurried(() => embedded.server.stop());
    assert.ok(took < STOP_LIMIT_MS, `${took} ms`);
    assert.equal(embedded.server.pid, undefined);
    await gone(pid);
    assert.equal(embedded.log.lines.filter((line) => line.startsWith("error")).length, 0);
  }
});

test("stopping while it is being started again leaves nothing behind", async () => {
  await using folder = await tempFolder();
  for (let attempt = 0; attempt < 5; attempt++) {
    await using embedded = await startEmbedded({ folder: folder.file("my.db-marmot"), listen: await ownAddress() });
    process.kill(running(embedded.server.pid), "SIGKILL");
    await embedded.log.told(/error The embedded broker ended/);
    await sleep(95 + attempt * 5);
    await embedded.server.stop();
    const pidFile = await readFile(folder.file("my.db-marmot", "nats", "nats-server.pid"), "utf8").catch(() => "");
    if (pidFile !== "") await gone(Number(pidFile));
    await rm(folder.file("my.db-marmot"), { recursive: true });
  }
});

test("Ctrl-C in Marmot's terminal does not reach the broker", async () => {
  await using folder = await tempFolder();
  await using embedded = await startEmbedded({ folder: folder.file("my.db-marmot"), listen: await ownAddress() });
  const group = (pid: number) => execFileSync("ps", ["-o", "pgid=", "-p", String(pid)]).toString().trim();
  assert.notEqual(group(running(embedded.server.pid)), group(process.pid));
});
