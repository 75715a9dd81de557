/** Many shards on one connection: what is received of all of them together stays bounded. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { jetstreamManager } from "@nats-io/jetstream";
import type { ChangeStream, Subscription } from "../src/change_stream.ts";
import { SubscriptionLostError } from "../src/errors.ts";
import { JetStreamChangeStream } from "../src/nats/change_stream.ts";
import { connectNats, type NatsLink } from "../src/nats/connect.ts";
import { ensureStreams } from "../src/nats/streams.ts";
import { keptLog } from "./support/kept_log.ts";
import { type NatsServer, startNatsServer } from "./support/nats.ts";

const MIB = 1024 * 1024;
const MESSAGE_BYTES = MIB / 4;
/** messages: more than what needs no turn */
const MUCH = 12;
/** messages of 20 MiB: three shards have more than may be held, each less than the server's window */
const WINDOW = 80;
const HELD_BYTES = 34 * MIB;
const TAKE_LIMIT_MS = 30_000;

interface Opened extends AsyncDisposable {
  readonly link: NatsLink;
  readonly streams: readonly JetStreamChangeStream[];
  stream(place: number): JetStreamChangeStream;
}

async function open(server: NatsServer, count: number): Promise<Opened> {
  const log = keptLog();
  const link = await connectNats({ urls: [server.url] }, log);
  const manager = await jetstreamManager(link.connection, { checkAPI: false });
  const plans = Array.from({ length: count }, (_, place) => {
    return {
      name: `s-${place}`,
      subject: `s.${place}`,
      replicas: 1,
      retentionAgeMs: 86_400_000,
      retentionBytes: 2 ** 30,
    };
  });
  await ensureStreams(manager, plans, false, log);
  const streams = plans.map(({ name, subject }) => new JetStreamChangeStream(link, manager, name, subject));
  return { link, streams, stream: (place) => streams[place]!, [Symbol.asyncDispose]: () => link.close() };
}

/** Messages `from` to `to`. */
async function fill(stream: ChangeStream, to: number, from = 1): Promise<void> {
  const data = new Uint8Array(MESSAGE_BYTES);
  for (let i = from; i <= to; i++) await stream.publish(data, `${i}`);
}

/** Takes messages `from` to `to`, as a subscriber does: subscribes again when a subscription is given up. */
async function takeAll(
  stream: ChangeStream,
  to: number,
  { from = 1, subscription }: { from?: number; subscription?: Subscription } = {},
): Promise<{ lost: number; subscription: Subscription }> {
  let lost = 0;
  let reading = subscription ?? await stream.subscribe(from);
  for (let next = from; next <= to;) {
    try {
      for (const { sequence } of await reading.take(MIB, AbortSignal.timeout(TAKE_LIMIT_MS))) {
        assert.equal(sequence, next++);
      }
    } catch (error) {
      if (!(error instanceof SubscriptionLostError)) throw error;
      lost++;
      await reading.close();
      reading = await stream.subscribe(next);
    }
  }
  return { lost, subscription: reading };
}

test("of shards that have much to catch up on one is read at a time, and those that have little don't wait", async () => {
  await using server = await startNatsServer();
  await using opened = await open(server, 4);
  const { stream } = opened;
  const [large, other, little, empty] = [stream(0), stream(1), stream(2), stream(3)];
  await fill(large, MUCH);
  await fill(other, MUCH);
  await fill(little, 1);
  const subscription = await large.subscribe(1);
  let isRead = false;
  const second = takeAll(other, MUCH).then(() => isRead = true);
  assert.equal((await takeAll(little, 1)).lost, 0);
  await (await empty.subscribe(1)).close();
  assert.equal(isRead, false);
  assert.equal((await takeAll(large, MUCH, { subscription })).lost, 0);
  await second;
});

test("a shard that has caught up lets others catch up while its subscription goes on", async () => {
  await using server = await startNatsServer();
  await using opened = await open(server, 2);
  const [one, other] = [opened.stream(0), opened.stream(1)];
  await fill(one, MUCH);
  await fill(other, MUCH);
  const { subscription } = await takeAll(one, MUCH);
  assert.equal((await takeAll(other, MUCH)).lost, 0);
  await fill(one, MUCH + 1, MUCH + 1);
  assert.equal((await takeAll(one, MUCH + 1, { from: MUCH + 1, subscription })).lost, 0);
});

test("shards that wait for their turn when the connection goes get it on the next one", async () => {
  await using server = await startNatsServer();
  await using opened = await open(server, 2);
  const [one, other] = [opened.stream(0), opened.stream(1)];
  await fill(one, MUCH);
  await fill(other, MUCH);
  const holding = await one.subscribe(1);
  const waiting = assert.rejects(other.subscribe(1), /the connection is lost/);
  const back = new Promise<void>((resolve) => opened.link.onChange((connected) => connected && resolve()));
  await server.restart();
  await Promise.all([waiting, back]);
  await holding.close();
  const { subscription } = await takeAll(other, MUCH);
  await subscription.close();
  assert.equal((await takeAll(one, MUCH)).lost, 0);
});

test("when nothing is taken for long, what is received of all shards stays bounded, and nothing is missed", async () => {
  await using server = await startNatsServer();
  await using opened = await open(server, 3);
  const { link, streams } = opened;
  const subscriptions = await Promise.all(streams.map((stream) => stream.subscribe(1)));
  // the server's window for each grows, and lets all of what follows come at once
  await Promise.all(streams.map(async (stream, place) => {
    const taken = takeAll(stream, WINDOW, { subscription: subscriptions[place]! });
    await fill(stream, WINDOW);
    assert.equal((await taken).lost, 0);
  }));
  await Promise.all(streams.map((stream) => fill(stream, 2 * WINDOW, WINDOW + 1)));
  assert.ok(link.turns.held < HELD_BYTES, `${link.turns.held} bytes are held`);
  let lost = 0;
  for (const [place, stream] of streams.entries()) {
    const all = await takeAll(stream, 2 * WINDOW, { from: WINDOW + 1, subscription: subscriptions[place]! });
    await all.subscription.close();
    lost += all.lost;
  }
  assert.ok(lost > 0);
  assert.equal(link.turns.held, 0);
});
