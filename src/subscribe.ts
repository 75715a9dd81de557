/** Subscribe: receives a shard's messages in order, judges them by the acceptance rule, and holds them for apply. */
import { createHash } from "node:crypto";
import { Acceptance, type Delivery, type Seen } from "./acceptance.ts";
import { decodeMessage } from "./change_codec.ts";
import type { ChangeStream, Subscription } from "./change_stream.ts";
import { MessageFormatError, StreamGapError, SubscriptionLostError } from "./errors.ts";
import type { Clock, Log } from "./runtime.ts";
import type { Cursor } from "./sqlite/cursors.ts";
import { untilAborted } from "./waiting.ts";

/** Bytes of messages held for apply, and taken at once */
const QUEUE_BYTES = 4 * 1024 * 1024;
const TAKE_BYTES = 1024 * 1024;
/** Pause before the next try, ms: after a passing failure, and after one that somebody must mend */
const RETRY_MS = 250;
const STOPPED_RETRY_MS = 10_000;
/** Failures in a row, with the broker there, after which they are said */
const FAILURES_SAID = 20;

export interface SubscriberOptions {
  readonly stream: ChangeStream;
  readonly clock: Clock;
  readonly log: Log;
  /** messages arrived */
  readonly wake: () => void;
  /** subscribed again: the stream may have lost its tail in between, also what it had acknowledged */
  readonly again: () => void;
  /** the file may have rows of messages up to this one, which it has not passed yet: of a clone, where its source stood */
  readonly ahead?: Cursor | undefined;
}

/** Why a shard does not go on, for the log and `status`; it is tried again from time to time. */
export interface ShardStop {
  readonly reason: string;
}

export class Subscriber {
  /** messages that apply has not passed yet */
  readonly queue: Delivery[] = [];
  private queueBytes = 0;
  private acceptance: Acceptance;
  /** the last message received */
  private at: Cursor;
  private room = Promise.withResolvers<void>();
  stopped: ShardStop | undefined;
  private subscribed = false;
  private failures = 0;
  /** why nothing is received, when that does not pass at once */
  failing: string | undefined;
  /** the next message is of another version, or damaged: a subscription alone is no sign that it goes on */
  private unreadable = false;

  constructor(private readonly options: SubscriberOptions, cursor: Cursor, seen: ReadonlyMap<string, Seen>) {
    this.acceptance = new Acceptance(seen);
    this.at = cursor;
  }

  /** The last sequence received. */
  get received(): number {
    return this.at.sequence;
  }

  /** Apply has passed the first `count` messages of the queue. */
  passed(count: number): void {
    for (const { data } of this.queue.splice(0, count)) this.queueBytes -= data.length;
    this.room.resolve();
    this.room = Promise.withResolvers();
  }

  /** Receives until aborted. Never rejects for what the stream does. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.receive(signal);
      } catch (error) {
        if (signal.aborted) return;
        await this.pause(error, signal);
      }
    }
  }

  private async receive(signal: AbortSignal): Promise<void> {
    const subscription = await this.options.stream.subscribe(this.at.sequence + 1);
    try {
      // only now: a stream may lose its tail in between, and a subscription does not live through that
      await this.compareIdentity(this.at);
      const { ahead } = this.options;
      if (ahead !== undefined && ahead.sequence > this.at.sequence) await this.compareIdentity(ahead);
      if (!this.unreadable) this.stopped = undefined;
      [this.failures, this.failing] = [0, undefined];
      if (this.subscribed) this.options.again();
      this.subscribed = true;
      while (!signal.aborted) {
        await this.takeSome(subscription, signal);
        while (this.queueBytes > QUEUE_BYTES && !signal.aborted) await untilAborted(this.room.promise, signal);
      }
    } finally {
      await subscription.close();
    }
  }

  private async takeSome(subscription: Subscription, signal: AbortSignal): Promise<void> {
    const messages = await subscription.take(TAKE_BYTES, signal);
    for (const { sequence, time, data } of messages) {
      if (sequence !== this.at.sequence + 1) {
        throw new StreamGapError(this.options.stream.name, this.at.sequence + 1, sequence, sequence);
      }
      const message = decodeMessage(data);
      this.queue.push({ sequence, time, data, message, verdict: this.acceptance.accept(message) });
      this.queueBytes += data.length;
      this.at = { sequence, digest: null, time };
    }
    if (messages.length > 0) [this.unreadable, this.stopped] = [false, undefined];
    const last = this.queue.at(-1);
    if (last !== undefined && messages.length > 0) this.at = { ...this.at, digest: digestOf(last.data) };
    this.options.wake();
  }

  /** A stream that lost its tail may have grown past a cursor again: the message there must still be the same. */
  private async compareIdentity(cursor: Cursor): Promise<void> {
    if (cursor.sequence === 0 || cursor.digest === null) return;
    const { stream } = this.options;
    const identity = await stream.identity(cursor.sequence);
    if (identity === undefined) {
      const state = await stream.state();
      if (state.firstSequence <= cursor.sequence + 1 && cursor.sequence <= state.lastSequence) return;
      throw new StreamGapError(stream.name, cursor.sequence + 1, state.firstSequence, state.lastSequence);
    }
    // the same message may have come again, behind others: then only its time tells
    if (identity.digest !== cursor.digest || identity.time !== cursor.time) {
      throw new StreamReplacedError(
        `${stream.name} holds another message at sequence ${cursor.sequence} than this node applied`,
      );
    }
  }

  private async pause(error: unknown, signal: AbortSignal): Promise<void> {
    const reason = stopReason(error, this.options.stream.name);
    this.unreadable = error instanceof MessageFormatError;
    if (reason === undefined) {
      this.lost(String(error));
    } else if (this.stopped?.reason !== reason) {
      this.stopped = { reason };
      this.options.log.error("shard stopped", { stream: this.options.stream.name, reason });
      this.options.wake();
    }
    await this.options.clock.sleep(reason === undefined ? RETRY_MS : STOPPED_RETRY_MS, signal).catch(() => {});
  }

  private lost(error: string): void {
    const { stream, log } = this.options;
    if (stream.connected) this.failures++;
    const said = stream.connected && this.failures === FAILURES_SAID;
    if (this.failures >= FAILURES_SAID) this.failing = `nothing is received, and it is tried again: ${error}`;
    log[said ? "warn" : "debug"]("subscription lost", { stream: stream.name, error });
  }
}

/** The stream was made anew, or lost its tail and grew again. */
class StreamReplacedError extends Error {}

function stopReason(error: unknown, stream: string): string | undefined {
  const clone =
    "The application goes on writing, and its changes wait. To join again, make a fresh copy with `marmot clone` on a healthy node.";
  if (error instanceof StreamGapError) return `${error.message}: messages this node needs are gone. ${clone}`;
  if (error instanceof StreamReplacedError) return `${error.message}: the stream lost data or was made anew. ${clone}`;
  if (error instanceof MessageFormatError) return `${stream}: ${error.message}`;
  if (error instanceof SubscriptionLostError) return undefined;
  return undefined;
}

/** First 16 bytes of sha256, in hex: MessageIdentity's digest. */
export function digestOf(data: Uint8Array): string {
  return createHash("sha256").update(data).digest("hex").slice(0, 32);
}
