import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import process from "node:process";
import { test } from "node:test";
import { type JetStreamManager, jetstreamManager } from "@nats-io/jetstream";
import type { ChangeStream, StreamMessage, Subscription } from "../src/change_stream.ts";
import { BrokerUnreachableError, StreamGapError, SubscriptionLostError } from "../src/errors.ts";
import { JetStreamChangeStream } from "../src/nats/change_stream.ts";
import { connectNats, type NatsLink } from "../src/nats/connect.ts";
import { ensureStreams } from "../src/nats/streams.ts";
import { keptLog } from "./support/kept_log.ts";
import { type NatsServer, startNatsServer } from "./support/nats.ts";
import { slowdown, unhurried } from "./support/slowdown.ts";

const NAME = "changes-1";
const SUBJECT = "changes.1";
const PLAN = { name: NAME, subject: SUBJECT, replicas: 1, retentionAgeMs: 86_400_000, retentionBytes: 2 ** 30 };
const TAKE_BYTES = 1_000_000;
const TAKE_LIMIT_MS = 20_000;
const WINDOW = 64;
const MB = 1e6;

interface Opened extends AsyncDisposable {
  readonly link: NatsLink;
  readonly manager: JetStreamManager;
  readonly stream: ChangeStream;
}

async function open(server: NatsServer): Promise<Opened> {
  const link = await connectNats({ urls: [server.url] }, keptLog());
  const manager = await jetstreamManager(link.connection, { checkAPI: false });
  await ensureStreams(manager, [PLAN], false, keptLog());
  const stream = new JetStreamChangeStream(link, manager, NAME, SUBJECT);
  return { link, manager, stream, [Symbol.asyncDispose]: () => link.close() };
}

const data = (number: number): Uint8Array => new TextEncoder().encode(`message ${number}`);
const take = (subscription: Subscription, maxBytes = TAKE_BYTES): Promise<StreamMessage[]> =>
  subscription.take(maxBytes, AbortSignal.timeout(TAKE_LIMIT_MS));

/** As many messages, however many arrive at once. */
async function takeAll(subscription: Subscription, count: number): Promise<StreamMessage[]> {
  const messages: StreamMessage[] = [];
  while (messages.length < count) messages.push(...await take(subscription));
  return messages;
}

/** Message `from` to `to`, several in flight; tries again what fails, as a publisher that knows its numbers does. */
async function publishAll(stream: ChangeStream, from: number, to: number, body = data): Promise<void> {
  let next = from;
  await Promise.all(Array.from({ length: WINDOW }, async () => {
    while (next <= to) {
      const number = next++;
      await stream.publish(body(number), `id-${number}`);
    }
  }));
}

test("what is published is read back with its sequence, data and time; the same id again is the same message", async () => {
  await using server = await startNatsServer();
  await using opened = await open(server);
  const { stream } = opened;
  assert.deepEqual(await stream.state(), { firstSequence: 1, lastSequence: 0, bytes: 0, maxBytes: 2 ** 30 });
  const before = Date.now();
  assert.equal(await stream.publish(data(1), "a"), 1);
  assert.equal(await stream.publish(data(1), "a"), 1);
  assert.equal(await stream.publish(new Uint8Array(), "b"), 2);
  const messages = await takeAll(await stream.subscribe(1), 2);
  assert.deepEqual(messages.map(({ sequence }) => sequence), [1, 2]);
  assert.deepEqual(messages[0]?.data, data(1));
  assert.equal(messages[1]?.data.length, 0);
  assert.ok(messages.every(({ time }) => time >= before - 1 && time <= Date.now() + 1));
  const identity = await stream.identity(1);
  const digest = createHash("sha256").update(data(1)).digest("hex").slice(0, 32);
  assert.deepEqual(identity, { digest, time: messages[0]?.time });
  assert.equal((await stream.identity(2))?.time, messages[1]?.time);
  assert.equal(await stream.identity(3), undefined);
  assert.equal(await stream.identity(0), undefined);
});

test("a message as large as maxPayload says travels, and is identified", async () => {
  await using server = await startNatsServer({ config: "max_payload: 2097152" });
  await using opened = await open(server);
  const { stream } = opened;
  assert.ok(stream.maxPayload > 2_090_000, String(stream.maxPayload));
  const large = new Uint8Array(stream.maxPayload).map((_, index) => index % 251);
  assert.equal(await stream.publish(large, "origin-nonce-epoch-number".repeat(4)), 1);
  const [message] = await take(await stream.subscribe(1), 1);
  assert.deepEqual(message?.data, large);
  assert.equal((await stream.identity(1))?.digest, createHash("sha256").update(large).digest("hex").slice(0, 32));
});

test("take returns all that has arrived, bounded by bytes, and waits for the first until it is aborted", async () => {
  await using server = await startNatsServer();
  await using opened = await open(server);
  const { stream, link } = opened;
  const subscription = await stream.subscribe(1);
  const abort = new AbortController();
  const waiting = subscription.take(TAKE_BYTES, abort.signal);
  abort.abort(new Error("enough"));
  await assert.rejects(waiting, /enough/);
  await assert.rejects(subscription.take(TAKE_BYTES, abort.signal), /enough/);
  await publishAll(stream, 1, 10, () => new Uint8Array(100));
  while (link.turns.held < 10 * 100) await stream.state();
  assert.equal((await take(subscription, 250)).length, 2);
  assert.equal((await take(subscription, 1)).length, 1);
  assert.equal((await take(subscription)).length, 7);
  await subscription.close();
  await assert.rejects(take(subscription), SubscriptionLostError);
});

test("a closed subscription leaves no consumer behind", async () => {
  await using server = await startNatsServer();
  await using opened = await open(server);
  const subscription = await opened.stream.subscribe(1);
  const count = async () => (await opened.manager.streams.info(NAME)).state.consumer_count;
  assert.equal(await count(), 1);
  await subscription.close();
  assert.equal(await count(), 0);
});

test("10,000 messages arrive in order, each once, across a server that is killed and started again", async () => {
  await using server = await startNatsServer({ config: "" });
  await using opened = await open(server);
  const { stream, link } = opened;
  const total = 10_000;
  const published = (async () => {
    let accepted = 0;
    while (accepted < total) {
      const batch = Array.from({ length: Math.min(WINDOW, total - accepted) }, (_, index) => accepted + index + 1);
      const results = await Promise.allSettled(batch.map((number) => stream.publish(data(number), `id-${number}`)));
      if (results.every(({ status }) => status === "fulfilled")) accepted += batch.length;
      else await connected(link);
    }
  })();
  const received: StreamMessage[] = [];
  const seen = new Set<string>();
  let kills = 0;
  let lost = 0;
  let subscription = await stream.subscribe(1);
  while (seen.size < total) {
    try {
      for (const message of await take(subscription)) {
        received.push(message);
        seen.add(new TextDecoder().decode(message.data));
      }
    } catch (error) {
      assert.ok(error instanceof SubscriptionLostError, String(error));
      lost++;
      subscription = await subscribeAgain(opened, received.length + 1);
    }
    if (kills < 2 && received.length > (kills + 1) * 3_000) {
      kills++;
      await server.kill();
      await server.restart();
    }
  }
  await published;
  assert.equal(kills, 2);
  assert.ok(lost >= 2);
  assert.deepEqual(received.map(({ sequence }) => sequence), received.map((_, index) => index + 1));
});

/** As the core does: tries again whatever may pass, once the connection is there. */
async function subscribeAgain({ link, stream }: Opened, sequence: number): Promise<Subscription> {
  for (const limit = AbortSignal.timeout(TAKE_LIMIT_MS);;) {
    await connected(link);
    try {
      return await stream.subscribe(sequence);
    } catch (error) {
      limit.throwIfAborted();
      if (error instanceof StreamGapError) throw error;
    }
  }
}

async function connected(link: NatsLink): Promise<void> {
  if (link.connected) return;
  await new Promise<void>((resolve) => link.onChange((now) => now ? resolve() : undefined));
}

test("a subscription goes on within a second of the server being back", async () => {
  await using server = await startNatsServer();
  await using opened = await open(server);
  const { stream } = opened;
  await stream.publish(data(1), "1");
  const subscription = await stream.subscribe(2);
  const waiting = assert.rejects(take(subscription), SubscriptionLostError);
  await server.kill();
  await server.restart();
  const slowed = slowdown();
  const back = performance.now();
  await waiting;
  const again = await subscribeAgain(opened, 2);
  await stream.publish(data(2), "2");
  assert.deepEqual((await take(again)).map(({ sequence }) => sequence), [2]);
  const took = (performance.now() - back) / Math.max(slowed, slowdown());
  assert.ok(took < 1_500, `${took} ms`);
});

test("while the broker is away, publish, state and subscribe fail at once, and what was under way does not wait", async () => {
  await using server = await startNatsServer();
  await using opened = await open(server);
  const { stream, link } = opened;
  server.freeze();
  const noticed = await unhurried(async () => {
    const pending = assert.rejects(stream.publish(data(1), "1"), BrokerUnreachableError);
    await new Promise<void>((resolve) => link.onChange((now) => now ? undefined : resolve()));
    await pending;
  });
  assert.ok(noticed < 4_500, "a dead link is seen within 2 to 3 s");
  assert.equal(stream.connected, false);
  const refused = await unhurried(async () => {
    await assert.rejects(stream.publish(data(2), "2"), BrokerUnreachableError);
    await assert.rejects(stream.state(), BrokerUnreachableError);
    await assert.rejects(stream.subscribe(1), BrokerUnreachableError);
  });
  assert.ok(refused < 100, `${refused} ms`);
  server.thaw();
});

test("a start below the first message is a gap", async () => {
  await using server = await startNatsServer();
  await using opened = await open(server);
  const { stream, manager } = opened;
  await publishAll(stream, 1, 10);
  await manager.streams.purge(NAME, { seq: 6 });
  await assert.rejects(stream.subscribe(5), (error) => {
    assert.ok(error instanceof StreamGapError);
    assert.deepEqual([error.stream, error.wanted, error.first, error.lastSequence], [NAME, 5, 6, 10]);
    return true;
  });
  assert.equal((await takeAll(await stream.subscribe(6), 5)).length, 5);
  await manager.streams.purge(NAME);
  assert.deepEqual((await stream.state()).firstSequence, 11);
  await assert.rejects(stream.subscribe(10), StreamGapError);
  await (await stream.subscribe(11)).close();
});

test("messages purged while a subscriber was behind are a gap, after what it had received", async () => {
  await using server = await startNatsServer();
  await using opened = await open(server);
  const { stream, manager } = opened;
  const count = 100;
  await publishAll(stream, 1, count, () => new Uint8Array(1_000_000));
  const subscription = await stream.subscribe(1);
  const [first] = await take(subscription, 1);
  assert.equal(first?.sequence, 1);
  await manager.streams.purge(NAME, { seq: count - 1 });
  let last = first?.sequence ?? 0;
  await assert.rejects(async () => {
    for (;;) {
      for (const { sequence } of await take(subscription)) assert.equal(sequence, ++last);
    }
  }, (error) => {
    assert.ok(error instanceof StreamGapError, String(error));
    assert.equal(error.wanted, last + 1);
    return true;
  });
  assert.ok(last < count - 1);
});

test("one message deleted from the middle is a gap", async () => {
  await using server = await startNatsServer();
  await using opened = await open(server);
  const { stream, manager } = opened;
  await publishAll(stream, 1, 5);
  await manager.streams.deleteMessage(NAME, 3);
  const subscription = await stream.subscribe(1);
  assert.deepEqual((await takeAll(subscription, 2)).map(({ sequence }) => sequence), [1, 2]);
  await assert.rejects(take(subscription), StreamGapError);
});

test("the last message deleted before it was read is a gap, although nothing follows it", async () => {
  await using server = await startNatsServer();
  await using opened = await open(server);
  const { stream, manager } = opened;
  await publishAll(stream, 1, 3);
  await manager.streams.deleteMessage(NAME, 3);
  const subscription = await stream.subscribe(3);
  await assert.rejects(take(subscription), StreamGapError);
});

test("a stream that ends before the wanted start, was made anew, or was deleted is a gap and no wait", async () => {
  await using server = await startNatsServer();
  await using opened = await open(server);
  const { stream, manager } = opened;
  await publishAll(stream, 1, 5);
  await assert.rejects(stream.subscribe(7), StreamGapError);
  const subscription = await stream.subscribe(6);
  await manager.streams.delete(NAME);
  await assert.rejects(take(subscription), SubscriptionLostError);
  await assert.rejects(stream.subscribe(6), StreamGapError);
  await ensureStreams(manager, [PLAN], false, keptLog());
  await assert.rejects(stream.subscribe(6), StreamGapError);
  await (await stream.subscribe(1)).close();
});

test("300 MB published while nobody takes cost a bounded amount of memory, and then arrive in order", async () => {
  await using server = await startNatsServer();
  await using opened = await open(server);
  await using publisher = await open(server);
  const count = 3_000;
  const body = new Uint8Array(100_000);
  const subscription = await opened.stream.subscribe(1);
  await publishAll(publisher.stream, 1, 100, () => body);
  // What comes after it is sent, although nobody takes it: until the first is wanted, nothing is.
  const [first] = await take(subscription, 1);
  assert.equal(first?.sequence, 1);
  const before = process.memoryUsage().rss;
  await publishAll(publisher.stream, 101, count, () => body);
  await opened.stream.state();
  const received = opened.link.connection.stats().inBytes / MB;
  assert.ok(received < 40, `${received} MB received`);
  // generous, for it holds the publisher's garbage too: what counts is that it isn't the 300 MB
  const grown = (process.memoryUsage().rss - before) / MB;
  assert.ok(grown < 250, `${grown} MB`);
  let next = 2;
  while (next <= count) {
    for (const message of await take(subscription)) {
      assert.equal(message.sequence, next++);
      assert.equal(message.data.length, body.length);
    }
  }
});
