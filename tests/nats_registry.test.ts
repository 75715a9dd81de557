import assert from "node:assert/strict";
import { test } from "node:test";
import { jetstreamManager } from "@nats-io/jetstream";
import { Kvm } from "@nats-io/kv";
import type { Agreement, Registry } from "../src/broker.ts";
import { EXIT, MarmotError } from "../src/errors.ts";
import { connectNats, type NatsLink } from "../src/nats/connect.ts";
import { openRegistry } from "../src/nats/registry.ts";
import { keptLog } from "./support/kept_log.ts";
import { type NatsServer, startNatsServer } from "./support/nats.ts";
import { slowdown } from "./support/slowdown.ts";

/** the server's unit is a second, and it sweeps about as often */
const LEASE_TIMES = { ttlMs: 2_000, renewMs: 500, pollMs: 100 };
const AT_ONCE_MS = 1_000;
const NODE = "00112233445566778899aabbccddeeff";

interface Opened extends AsyncDisposable {
  readonly registry: Registry;
  readonly link: NatsLink;
  close(): Promise<void>;
}

async function open(server: NatsServer, leaseTimes = LEASE_TIMES): Promise<Opened> {
  const link = await connectNats({ urls: [server.url] }, keptLog());
  const manager = await jetstreamManager(link.connection, { checkAPI: false });
  const options = { streamPrefix: "orders", replicas: 1, updateStreams: false, leaseTimes };
  const registry = await openRegistry(link, manager, options, keptLog());
  return { registry, link, close: () => link.close(), [Symbol.asyncDispose]: () => link.close() };
}

function isConflict(error: unknown): boolean {
  assert.ok(error instanceof MarmotError, String(error));
  assert.equal(error.exitCode, EXIT.conflict);
  assert.match(error.message, /Cannot run as node 0011.*same identity.*marmot clone/);
  return true;
}

/** Resolves once the connection is back and somebody holds the lease. */
async function leaseIsHeld(link: NatsLink): Promise<void> {
  if (!link.connected) await new Promise<void>((resolve) => link.onChange((now) => now ? resolve() : undefined));
  const kv = await new Kvm(link.connection).open("orders-registry");
  const changes = await kv.watch({ key: `lease.${NODE}` });
  for await (const entry of changes) if (entry.operation === "PUT") return;
}

function rowsOf(home: string): Agreement {
  return { placement: "rows", home };
}

const aborted = (signal: AbortSignal): Promise<void> =>
  signal.aborted
    ? Promise.resolve()
    : new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));

test("the first node decides a table's placement and home, and all nodes get that answer", async () => {
  await using server = await startNatsServer();
  await using one = await open(server);
  await using two = await open(server);
  const whole = { placement: "whole", home: "people" } as const;
  assert.deepEqual(await one.registry.agreePlacement("users", whole), whole);
  assert.deepEqual(await two.registry.agreePlacement("users", rowsOf("users")), whole);
  assert.deepEqual(await two.registry.agreePlacement("USERS", rowsOf("USERS")), rowsOf("USERS"));
  const answers = await Promise.all(
    [one, two, one, two].map(({ registry }, index) => registry.agreePlacement("at once", rowsOf(`home ${index}`))),
  );
  assert.equal(new Set(answers.map(({ home }) => home)).size, 1);
});

test("tables of any name are placed: spaces, dots, wildcards, emojis, thousands of letters", async () => {
  await using server = await startNatsServer();
  await using one = await open(server);
  const names = ["", " ", "a.b", "a*", ">", "🦫", "é", "x".repeat(5_000), "a\nb", `"quoted"`, "x/y=z"];
  for (const name of names) assert.deepEqual(await one.registry.agreePlacement(name, rowsOf(name)), rowsOf(name));
  for (const name of names) assert.deepEqual(await one.registry.agreePlacement(name, rowsOf("other")), rowsOf(name));
});

test("a lease of another place that is renewed is a conflict", async () => {
  await using server = await startNatsServer();
  await using one = await open(server);
  await using two = await open(server);
  const lease = await one.registry.lease(NODE, "nonce1", "machine-a:/a.db");
  await assert.rejects(two.registry.lease(NODE, "nonce2", "machine-b:/b.db"), (error) => {
    assert.match(String(error), /machine-a:\/a\.db/);
    return isConflict(error);
  });
  assert.equal(lease.lost.aborted, false);
  await lease.release();
});

test("a lease that was released is free at once", async () => {
  await using server = await startNatsServer();
  await using one = await open(server);
  await using two = await open(server);
  await (await one.registry.lease(NODE, "nonce1", "a")).release();
  const slowed = slowdown();
  const started = performance.now();
  const lease = await two.registry.lease(NODE, "nonce2", "b");
  assert.ok((performance.now() - started) / Math.max(slowed, slowdown()) < AT_ONCE_MS);
  await lease.release();
  await lease.release();
});

test("a lease of another place that is not renewed is waited for", async () => {
  await using server = await startNatsServer();
  await using one = await open(server);
  await using two = await open(server);
  await one.registry.lease(NODE, "nonce1", "a");
  await one.close();
  const lease = await two.registry.lease(NODE, "nonce2", "b");
  assert.equal(lease.lost.aborted, false);
  await lease.release();
});

test("a lease left by a process of the same place is taken over at once, and that process learns it if it still runs", async () => {
  await using server = await startNatsServer();
  await using one = await open(server);
  await using two = await open(server);
  const first = await one.registry.lease(NODE, "nonce1", "a");
  const slowed = slowdown();
  const started = performance.now();
  const second = await two.registry.lease(NODE, "nonce2", "a");
  assert.ok((performance.now() - started) / Math.max(slowed, slowdown()) < AT_ONCE_MS);
  await aborted(first.lost);
  isConflict(first.lost.reason);
  assert.equal(second.lost.aborted, false);
  await first.release();
  await assert.rejects(one.registry.lease(NODE, "nonce3", "b"), isConflict);
  await second.release();
});

test("a lease outlives a broker that was away for longer than its time", async () => {
  await using server = await startNatsServer();
  await using one = await open(server);
  const lease = await one.registry.lease(NODE, "nonce1", "a");
  await server.kill();
  await new Promise((resolve) => setTimeout(resolve, LEASE_TIMES.ttlMs + 500));
  assert.equal(lease.lost.aborted, false);
  await server.restart();
  await leaseIsHeld(one.link);
  await using two = await open(server);
  await assert.rejects(two.registry.lease(NODE, "nonce2", "b"), isConflict);
  assert.equal(lease.lost.aborted, false);
  await lease.release();
});

test("a process that was stopped while another took its lease learns it when it goes on", async () => {
  await using server = await startNatsServer();
  // never renewed in time, as if the process had been stopped
  await using sleeper = await open(server, { ...LEASE_TIMES, renewMs: 4_500 });
  await using other = await open(server);
  const first = await sleeper.registry.lease(NODE, "nonce1", "a");
  const second = await other.registry.lease(NODE, "nonce2", "b");
  await aborted(first.lost);
  isConflict(first.lost.reason);
  assert.equal(second.lost.aborted, false);
  await second.release();
});
