import assert from "node:assert/strict";
import { chmod, mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { connect as connectSocket, createServer, type Server } from "node:net";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { connect } from "@nats-io/transport-node";
import { EXIT, MarmotError } from "../src/errors.ts";
import { startServer } from "../src/nats/server.ts";
import { connectAs, startEmbedded, WatchedLog } from "./support/embedded.ts";
import { freePort, startNatsServer } from "./support/nats.ts";
import { unhurried } from "./support/slowdown.ts";
import { tempFolder } from "./support/tmp.ts";

const DEFAULT_PORT = 4222;
const READY_LIMIT_MS = 500;

/** Holds a port, unless someone does already. */
async function occupy(port: number): Promise<AsyncDisposable> {
  const server: Server = createServer();
  await new Promise<void>((resolve) => {
    server.once("error", () => resolve());
    server.listen(port, "127.0.0.1", resolve);
  });
  return { [Symbol.asyncDispose]: () => new Promise((resolve) => server.close(() => resolve())) };
}

async function refused(starting: Promise<unknown>, exitCode: number, pattern: RegExp): Promise<void> {
  await assert.rejects(starting, (error) => {
    assert.ok(error instanceof MarmotError, String(error));
    assert.match(error.message, pattern);
    assert.equal(error.exitCode, exitCode);
    return true;
  });
}

test("the embedded broker stores messages half a second after its start", async () => {
  const times: number[] = [];
  for (let attempt = 0; attempt < 5; attempt++) {
    await using folder = await tempFolder();
    await using started = new AsyncDisposableStack();
    times.push(
      await unhurried(async () => {
        const { server } = started.use(await startEmbedded({ folder: folder.file("my.db-marmot") }));
        const client = started.use(await connectAs(server.url, server.credentialsFile));
        await client.manager.streams.add({ name: "s", subjects: ["s"] });
        assert.equal((await client.jetstream.publish("s", "x")).seq, 1);
      }),
    );
  }
  assert.ok(Math.min(...times) < READY_LIMIT_MS, `ms: ${times}`);
});

test("the embedded broker knows one user, and listens on this machine only", async () => {
  await using folder = await tempFolder();
  await using embedded = await startEmbedded({ folder: folder.file("my.db-marmot") });
  const { url } = embedded.server;
  assert.match(url, /^nats:\/\/127\.0\.0\.1:\d+$/);
  await assert.rejects(connect({ servers: url, reconnect: false }), /Authorization/i);
  await assert.rejects(connect({ servers: url, user: "marmot", pass: "", reconnect: false }), /Authorization/i);
  const port = Number(new URL(url).port);
  const others = Object.values(networkInterfaces()).flatMap((found) => found ?? []).filter((found) => !found.internal);
  for (const { address } of others.filter(({ family }) => family === "IPv4")) {
    const socket = connectSocket({ host: address, port });
    const reached = await new Promise((resolve) => {
      socket.once("connect", () => resolve(true));
      socket.once("error", () => resolve(false));
    });
    socket.destroy();
    assert.equal(reached, false, address);
  }
});

test("acknowledged messages are on disk: each write is synced", async () => {
  await using folder = await tempFolder();
  await using _ = await startEmbedded({ folder: folder.file("my.db-marmot") });
  const configuration = await readFile(folder.file("my.db-marmot", "nats", "nats-server.conf"), "utf8");
  assert.match(configuration, /^ {2}sync_interval: always$/m);
});

test("a client on a slow link has a minute to take what was sent to it at once", async () => {
  await using folder = await tempFolder();
  await using _ = await startEmbedded({ folder: folder.file("my.db-marmot") });
  const configuration = await readFile(folder.file("my.db-marmot", "nats", "nats-server.conf"), "utf8");
  assert.match(configuration, /^write_deadline: "60s"$/m);
});

test("only the owner can read the folder, and no secret is in arguments, environment or configuration", async () => {
  await using folder = await tempFolder();
  const marmotFolder = folder.file("my.db-marmot");
  await mkdir(marmotFolder, { mode: 0o755 });
  process.env.MARMOT_SECRET_OF_THE_TEST = "hush";
  await using embedded = await startEmbedded({ folder: marmotFolder });
  delete process.env.MARMOT_SECRET_OF_THE_TEST;
  for (const path of [marmotFolder, join(marmotFolder, "nats"), join(marmotFolder, "nats", "jetstream")]) {
    assert.equal((await stat(path)).mode & 0o777, 0o700, path);
  }
  for (const path of [embedded.server.credentialsFile, join(marmotFolder, "nats", "nats-server.conf")]) {
    assert.equal((await stat(path)).mode & 0o777, 0o600, path);
  }
  const seed = (await readFile(embedded.server.credentialsFile, "utf8")).trim();
  assert.match(seed, /^SU[A-Z2-7]{56}$/);
  const configuration = await readFile(join(marmotFolder, "nats", "nats-server.conf"), "utf8");
  assert.ok(!configuration.includes(seed));
  if (process.platform !== "linux") return;
  const pid = String(embedded.server.pid);
  assert.doesNotMatch(await readFile(join("/proc", pid, "environ"), "utf8"), /hush|HOME=|PATH=\//);
  assert.ok(!(await readFile(join("/proc", pid, "cmdline"), "utf8")).includes(seed));
});

test("credentials, name, port and messages are the same at the next start", async () => {
  await using folder = await tempFolder();
  // the default port may be another test's by the second start
  await using _ = await occupy(DEFAULT_PORT);
  const options = { folder: folder.file("my.db-marmot") };
  const starts: string[] = [];
  for (const count of [1, 2]) {
    await using embedded = await startEmbedded(options);
    await using client = await connectAs(embedded.server.url, embedded.server.credentialsFile);
    if (count === 1) await client.manager.streams.add({ name: "s", subjects: ["s"] });
    assert.equal((await client.jetstream.publish("s", "x")).seq, count);
    const seed = await readFile(embedded.server.credentialsFile, "utf8");
    starts.push([embedded.server.url, client.connection.info?.server_name, seed].join(" "));
  }
  assert.equal(starts[0], starts[1]);
});

test("when the default port is busy a free one is taken, the same at the next start", async () => {
  await using folder = await tempFolder();
  await using _ = await occupy(DEFAULT_PORT);
  const options = { folder: folder.file("my.db-marmot") };
  const urls: string[] = [];
  for (let count = 0; count < 2; count++) {
    await using embedded = await startEmbedded(options);
    urls.push(embedded.server.url);
    if (count === 0) await embedded.log.told(/info The default port is busy.* busy=127.0.0.1:4222 holder=/);
  }
  assert.equal(urls[0], urls[1]);
  assert.notEqual(new URL(urls[0] ?? "").port, String(DEFAULT_PORT));
  await using __ = await occupy(Number(new URL(urls[0] ?? "").port));
  await using moved = await startEmbedded(options);
  await moved.log.told(/warn The embedded broker's port is busy: other nodes have to use its new address/);
  assert.notEqual(moved.server.url, urls[0]);
});

test("an address that was asked for and is busy is refused, and the message says who is there", async () => {
  await using folder = await tempFolder();
  const options = { folder: folder.file("my.db-marmot") };
  await using first = await startEmbedded({ folder: folder.file("first.db-marmot") });
  const port = Number(new URL(first.server.url).port);
  const another = /on 127\.0\.0\.1:\d+: the embedded broker of another Marmot \(marmot-\w+, version .*--listen/;
  await refused(startEmbedded({ ...options, listen: { host: "127.0.0.1", port } }), EXIT.broker, another);
  await using nats = await startNatsServer({ config: `server_name: "theirs"` });
  const listen = { host: "127.0.0.1", port: nats.port };
  await refused(startEmbedded({ ...options, listen }), EXIT.broker, /: a NATS server \(theirs, version .*--nats-url/);
  const free = await freePort();
  await using _ = await occupy(free);
  const program = startEmbedded({ ...options, listen: { host: "127.0.0.1", port: free } });
  await refused(program, EXIT.broker, /another program listens there/);
  const foreign = startEmbedded({ ...options, listen: { host: "192.0.2.1", port: free } });
  await refused(foreign, EXIT.broker, /this machine has no such address/);
});

test("an address that was asked for is used, also all of this machine's", async () => {
  await using folder = await tempFolder();
  const port = await freePort();
  await using embedded = await startEmbedded({ folder: folder.file("a.db-marmot"), listen: { host: "0.0.0.0", port } });
  assert.equal(embedded.server.url, `nats://127.0.0.1:${port}`);
  await using client = await connectAs(embedded.server.url, embedded.server.credentialsFile);
  assert.equal(client.connection.info?.auth_required, true);
});

test("folders of any name will do", async () => {
  await using folder = await tempFolder();
  for (const name of [`a b'c"d.db-marmot`, "ü🦫$HOME.db-marmot", "x\\n;{}#.db-marmot"]) {
    await using embedded = await startEmbedded({ folder: folder.file(name) });
    await using client = await connectAs(embedded.server.url, embedded.server.credentialsFile);
    await client.manager.streams.add({ name: "s", subjects: ["s"] });
    assert.ok((await readdir(folder.file(name, "nats", "jetstream", "$G", "streams"))).includes("s"));
  }
});

test("a nats-server that is missing, is something else or is too old is refused by name", async () => {
  await using folder = await tempFolder();
  const options = { folder: folder.file("my.db-marmot") };
  const start = (program: string) => startServer({ ...options, program }, new WatchedLog());
  await refused(start(folder.file("none")), EXIT.broker, /--nats-server .*none: there is no such file/);
  await writeFile(folder.file("text"), "hello");
  await refused(start(folder.file("text")), EXIT.broker, /--nats-server .*text: is no nats-server that runs here/);
  await writeFile(folder.file("old"), "#!/bin/sh\necho 'nats-server: v2.9.10'\n");
  await chmod(folder.file("old"), 0o755);
  await refused(start(folder.file("old")), EXIT.broker, /is version 2\.9\.10\. Marmot needs 2\.11\.0 or newer/);
  assert.deepEqual((await readdir(folder.path)).sort(), ["old", "text"]);
});

test("without any nats-server the message names the version wanted, --nats-server and --nats-url", async () => {
  await using folder = await tempFolder();
  const { PATH, XDG_CACHE_HOME } = process.env;
  Object.assign(process.env, { PATH: folder.path, XDG_CACHE_HOME: folder.path });
  try {
    const starting = startServer({ folder: folder.file("my.db-marmot") }, new WatchedLog());
    await refused(
      starting,
      EXIT.broker,
      /no nats-server 2\.14\.5 or newer in PATH.*--nats-server PATH.*--nats-url URL/,
    );
  } finally {
    Object.assign(process.env, { PATH });
    if (XDG_CACHE_HOME === undefined) delete process.env.XDG_CACHE_HOME;
    else process.env.XDG_CACHE_HOME = XDG_CACHE_HOME;
  }
});

test("what can't be used in the folder is named, and left as it is", async () => {
  await using folder = await tempFolder();
  await writeFile(folder.file("file-marmot"), "");
  await refused(
    startEmbedded({ folder: folder.file("file-marmot") }),
    EXIT.broker,
    /file-marmot.*can't be used.*writable/,
  );
  await mkdir(folder.file("a-marmot"));
  await writeFile(folder.file("a-marmot", "credentials"), "not a seed\n");
  await refused(startEmbedded({ folder: folder.file("a-marmot") }), EXIT.broker, /credentials holds no nkey user seed/);
  assert.equal(await readFile(folder.file("a-marmot", "credentials"), "utf8"), "not a seed\n");
  await mkdir(folder.file("b-marmot", "nats"), { recursive: true });
  await writeFile(folder.file("b-marmot", "nats", "broker.json"), "{");
  await refused(startEmbedded({ folder: folder.file("b-marmot") }), EXIT.broker, /broker\.json is damaged/);
});
