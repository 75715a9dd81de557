import assert from "node:assert/strict";
import { copyFile, mkdir, readFile, stat } from "node:fs/promises";
import process from "node:process";
import { test } from "node:test";
import { Kvm } from "@nats-io/kv";
import { EXIT, MarmotError } from "../src/errors.ts";
import type { ClusterOptions } from "../src/nats/server_configuration.ts";
import { connectAs, eventually, startEmbedded, type TestClient, type TestServer } from "./support/embedded.ts";
import { freePort, startNatsServer } from "./support/nats.ts";
import { type TempFolder, tempFolder } from "./support/tmp.ts";

/** A member listens on a port of its own and knows the ports of `peers`. */
function member(port: number, peers: readonly number[]): ClusterOptions {
  return { name: "c", listen: { host: "127.0.0.1", port }, peers: peers.map((peer) => `nats://127.0.0.1:${peer}`) };
}

async function start(folder: TempFolder, name: string, cluster: ClusterOptions): Promise<TestServer> {
  const path = folder.file(`${name}.db-marmot`);
  await mkdir(path);
  if (name !== "a") await copyFile(folder.file("a.db-marmot", "cluster-secret"), `${path}/cluster-secret`);
  return await startEmbedded({ folder: path, cluster, listen: { host: "127.0.0.1", port: await freePort() } });
}

const publish = (client: TestClient) => eventually(() => client.jetstream.publish("s", "x", { msgID: "same" }));

test("three brokers form a cluster that stores each message three times, and does without one of them", async () => {
  await using folder = await tempFolder();
  const [first, second, third] = [await freePort(), await freePort(), await freePort()];
  await using a = await start(folder, "a", member(first, []));
  await using b = await start(folder, "b", member(second, [first]));
  await using c = await start(folder, "c", member(third, [first, second]));
  await using client = await connectAs(b.server.url, b.server.credentialsFile);
  const config = { name: "s", subjects: ["s"], num_replicas: 3 };
  await eventually(() => client.manager.streams.add(config));
  assert.equal((await publish(client)).seq, 1);
  await a.server.stop();
  await eventually(() => client.jetstream.publish("s", "y", { msgID: "other" }));
  await using elsewhere = await connectAs(c.server.url, c.server.credentialsFile);
  const { state } = await eventually(() => elsewhere.manager.streams.info("s"));
  assert.equal(state.messages, 2);
  // Clients are not sent to brokers that don't know them.
  assert.equal(client.connection.info?.connect_urls, undefined);
});

test("the brokers of a cluster share a secret, which is on no command line", async () => {
  await using folder = await tempFolder();
  const port = await freePort();
  await using a = await start(folder, "a", member(port, []));
  const file = folder.file("a.db-marmot", "cluster-secret");
  await a.log.told(new RegExp(`info Made the secret that all brokers of this cluster share.* file=${file}`));
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  if (process.platform !== "linux") return;
  const commandLine = await readFile(`/proc/${a.server.pid}/cmdline`, "utf8");
  assert.ok(!commandLine.includes((await readFile(file, "utf8")).trim()));
});

test("a broker with another secret is kept out, and both sides say which file to copy", async () => {
  await using folder = await tempFolder();
  const [first, second] = [await freePort(), await freePort()];
  await using a = await start(folder, "a", member(first, []));
  const stranger = { folder: folder.file("b.db-marmot"), cluster: member(second, [first]) };
  await using b = await startEmbedded({ ...stranger, listen: { host: "127.0.0.1", port: await freePort() } });
  const advice = /error Another broker of the cluster has another secret\. Copy .*cluster-secret of a node/;
  await Promise.all([a.log.told(advice), b.log.told(advice)]);
});

test("a busy cluster address is refused and names its flag", async () => {
  await using folder = await tempFolder();
  const port = await freePort();
  await using _ = await start(folder, "a", member(port, []));
  await assert.rejects(start(folder, "b", member(port, [])), (error) => {
    assert.ok(error instanceof MarmotError);
    assert.match(
      error.message,
      /another program listens on 127\.0\.0\.1:\d+\. Give a free address with --cluster-addr/,
    );
    assert.equal(error.exitCode, EXIT.broker);
    return true;
  });
});

test("a broker that has streams is not turned into a member of a cluster, which would lose them", async () => {
  await using folder = await tempFolder();
  const options = { folder: folder.file("my.db-marmot") };
  {
    await using single = await startEmbedded(options);
    await using client = await connectAs(single.server.url, single.server.credentialsFile);
    await client.manager.streams.add({ name: "s", subjects: ["s"] });
  }
  await assert.rejects(startEmbedded({ ...options, cluster: member(await freePort(), []) }), (error) => {
    assert.ok(error instanceof MarmotError);
    assert.match(error.message, /holds streams that it kept as a single broker, which would be lost/);
    assert.equal(error.exitCode, EXIT.refused);
    return true;
  });
});

test("a leaf node's clients use the streams of its hub", async () => {
  await using folder = await tempFolder();
  const port = await freePort();
  await using hub = await startEmbedded({
    folder: folder.file("hub.db-marmot"),
    listen: { host: "127.0.0.1", port: await freePort() },
    leafListen: { host: "127.0.0.1", port },
  });
  await using leaf = await startEmbedded({
    folder: folder.file("leaf.db-marmot"),
    listen: { host: "127.0.0.1", port: await freePort() },
    leaf: { urls: [`nats-leaf://127.0.0.1:${port}`], credentialsFile: hub.server.credentialsFile },
  });
  await using client = await connectAs(leaf.server.url, leaf.server.credentialsFile);
  await eventually(() => client.manager.streams.add({ name: "s", subjects: ["s"] }));
  assert.equal((await publish(client)).seq, 1);
  const bucket = await new Kvm(client.jetstream).create("b");
  await bucket.create("key", "value");
  assert.equal((await bucket.get("key"))?.string(), "value");
  const consumer = await client.jetstream.consumers.getPushConsumer("s", { deliver_policy: "all" });
  for await (const message of await consumer.consume()) {
    assert.equal(message.string(), "x");
    break;
  }
  await using atHub = await connectAs(hub.server.url, hub.server.credentialsFile);
  assert.equal((await atHub.manager.streams.info("s")).state.messages, 1);
});

test("a leaf node says what its hub lacks, and starts without a hub that it has reached before", async () => {
  await using folder = await tempFolder();
  const port = await freePort();
  const options = {
    folder: folder.file("leaf.db-marmot"),
    listen: { host: "127.0.0.1", port: await freePort() },
    leaf: { urls: [`nats-leaf://127.0.0.1:${port}`] },
  };
  await assert.rejects(startEmbedded(options), /no NATS server answers there\. Start the hub first/);
  const leafnodes = `leafnodes {\n listen: "127.0.0.1:${port}"\n}`;
  {
    await using _ = await startNatsServer({ config: leafnodes });
    await assert.rejects(startEmbedded(options), /its JetStream has no domain.*--nats-url/);
  }
  {
    await using folder = await tempFolder();
    const config = `${leafnodes}\njetstream {\n store_dir: ${JSON.stringify(folder.path)}\n domain: hub\n}`;
    await using _ = await startNatsServer({ jetstream: false, config });
    await using __ = await startEmbedded(options);
  }
  await using _ = await startEmbedded(options);
});
