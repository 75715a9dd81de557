/**
 * Publish: sends a shard's batches in order, several in flight. It starts, and starts again after a gap, in one way: let
 * apply reach the stream's end, publish an empty marker as number 1 of the next epoch until it or a higher epoch is
 * accepted, then publish from the oldest pending entry. What an older attempt left in the network is either in front of
 * the marker, and then known, or behind it, and refused by everyone.
 */
import type { Delivery, Seen } from "./acceptance.ts";
import type { MessageHeader } from "./change.ts";
import { encodeMessage, MAX_HEADER_BYTES } from "./change_codec.ts";
import type { ChangeStream } from "./change_stream.ts";
import type { Clock, Log } from "./runtime.ts";

/** Messages, and their bytes, that may wait for the stream's answer. */
const WINDOW_MESSAGES = 128;
const WINDOW_BYTES = 8 * 1024 * 1024;
/** Bytes at first, and at least: how many there may be is found out by how soon answers come. */
const FIRST_WINDOW_BYTES = 256 * 1024;
const LEAST_WINDOW_BYTES = 16 * 1024;
/** Answers that take less let more wait, those that take more let fewer, ms; a link that is silent for 3 s counts as dead */
const SOON_MS = 1_000;
const LATE_MS = 2_000;
/** While so many wait, a batch is not begun before it is half full: each costs the broker a sync of its disk. */
const CROWDED_MESSAGES = 4;
/** Pause before the next try after a publish failed, ms */
const RETRY_MS = 250;
/** Failures in a row, with the broker there, after which they are said */
const FAILURES_SAID = 8;
/** A marker whose answer came but which is not seen is sent again after this, ms */
const MARKER_RESEND_MS = 2_000;

export type PublisherState =
  /** apply must pass the stream's end first; undefined until that is known */
  | { readonly kind: "starting"; end: number | undefined }
  | { readonly kind: "marking"; epoch: number; sentAt: number | undefined }
  | { readonly kind: "ready"; readonly epoch: number; number: number };

export interface PublisherOptions {
  readonly stream: ChangeStream;
  readonly origin: string;
  readonly nonce: string;
  readonly clock: Clock;
  readonly log: Log;
  /** called when there is something to do again: an answer came, or a pause is over */
  readonly wake: () => void;
  /** capture must read again from the oldest pending entry */
  readonly rewind: () => void;
  /** another process publishes with this node's id */
  readonly conflict: (other: string) => void;
}

/** What capture hands over: see Part of capture.ts. */
export interface PublishPart {
  readonly frame: Uint8Array;
  readonly base: number;
  readonly last: boolean;
}

export class Publisher {
  private state: PublisherState = { kind: "starting", end: undefined };
  private asking = false;
  private part = 0;
  private inFlight = 0;
  private inFlightBytes = 0;
  private windowBytes = FIRST_WINDOW_BYTES;
  /** messages that have their number, and no place in the window yet */
  private unsent: [MessageHeader, Uint8Array][] = [];
  private notBefore = 0;
  /** answers to messages of an earlier attempt no longer matter */
  private attempt = 0;
  private failures = 0;
  /** nonce of another process with this node's id */
  private outdoneBy: string | undefined;
  private failedAt: PublisherState["kind"] | undefined;
  /** why nothing is published, when that does not pass at once */
  failing: string | undefined;

  constructor(private readonly options: PublisherOptions) {}

  get kind(): PublisherState["kind"] {
    return this.state.kind;
  }

  /** May `send` be called? */
  get open(): boolean {
    return this.state.kind === "ready" && this.options.stream.connected && this.inFlight < WINDOW_MESSAGES &&
      this.inFlightBytes < this.windowBytes && this.unsent.length === 0;
  }

  /** Is a batch worth beginning only when there is much to send? */
  get crowded(): boolean {
    return this.inFlight >= CROWDED_MESSAGES;
  }

  restart(why: string): void {
    if (this.state.kind === "starting" && this.state.end === undefined) return;
    this.options.log.debug("publisher starts again", { stream: this.options.stream.name, why });
    this.state = { kind: "starting", end: undefined };
    this.attempt++;
    this.unsent = [];
    // too much for the link, perhaps: less the next time, until the answers say otherwise
    if (this.inFlight > 0) this.windowBytes = Math.max(LEAST_WINDOW_BYTES, this.windowBytes / 4);
    this.notBefore = this.options.clock.now() + RETRY_MS;
  }

  /**
   * Goes on with the start where it can.
   * @param cursor what apply has reached
   * @param seen what was accepted last from this node
   */
  step(cursor: number, seen: Seen | undefined): void {
    if (!this.options.stream.connected || this.options.clock.now() < this.notBefore) return;
    if (this.state.kind === "starting" && this.state.end === undefined) this.askEnd();
    if (this.state.kind === "starting" && this.state.end !== undefined && cursor >= this.state.end) {
      this.state = { kind: "marking", epoch: (seen?.epoch ?? 0) + 1, sentAt: undefined };
    }
    if (this.state.kind === "marking") this.mark(this.state, cursor, seen);
  }

  /** Sends a part as one message, or as several when the frame is larger than a message may be. */
  send(part: PublishPart): void {
    if (this.state.kind !== "ready") throw new Error("Cannot publish: the publisher has not started");
    const allowed = Math.min(this.options.stream.maxPayload, this.windowBytes / 2) - MAX_HEADER_BYTES;
    const room = Math.max(1, Math.floor(allowed));
    for (let from = 0; from === 0 || from < part.frame.length; from += room) {
      const frame = part.frame.subarray(from, from + room);
      const continues = from + room < part.frame.length;
      this.state.number++;
      this.part++;
      const last = part.last && !continues;
      const header = this.header(this.state.epoch, this.state.number, part.base, this.part, last, continues);
      if (last) this.part = 0;
      this.unsent.push([header, encodeMessage({ ...header, frame })]);
    }
    this.transmitUnsent();
  }

  private transmitUnsent(): void {
    while (this.inFlightBytes < this.windowBytes) {
      const next = this.unsent.shift();
      if (next === undefined) return;
      this.transmit(...next);
    }
  }

  /** Called for each message that apply has passed. */
  observe({ message, verdict }: Delivery): void {
    const own = message.origin === this.options.origin;
    // a marker is small, and goes through where other messages don't
    if (own && verdict.accepted && message.nonce === this.options.nonce && message.number > 1) this.worked();
    if (!own || this.state.kind !== "ready") return;
    const { epoch } = this.state;
    if (message.nonce !== this.options.nonce) {
      if (verdict.accepted && message.epoch > epoch) this.outdone(message.nonce);
      return;
    }
    if (verdict.accepted || message.epoch !== epoch) return;
    const seen = verdict.seen;
    if (seen?.epoch !== epoch || message.number > seen.number) this.restart("a message before this one is missing");
  }

  /**
   * A message of another process with this node's id has a higher epoch. One may have been in the network since before this
   * process began, when the stream has lost what that one had heard; who comes back after an even higher one is alive.
   */
  private outdone(other: string): void {
    if (this.outdoneBy === other) return this.options.conflict(other);
    this.outdoneBy = other;
    this.restart("another process has a higher epoch");
  }

  private header(
    epoch: number,
    number: number,
    base: number,
    part: number,
    last: boolean,
    continues: boolean,
  ): MessageHeader {
    return { origin: this.options.origin, nonce: this.options.nonce, epoch, number, base, part, last, continues };
  }

  private askEnd(): void {
    if (this.asking) return;
    this.asking = true;
    const attempt = this.attempt;
    this.options.stream.state().then(
      (state) => this.attempt === attempt && this.state.kind === "starting" && (this.state.end = state.lastSequence),
      (error) => this.fail(attempt, error),
    ).finally(() => {
      this.asking = false;
      this.options.wake();
    });
  }

  private mark(state: Extract<PublisherState, { kind: "marking" }>, cursor: number, seen: Seen | undefined): void {
    if (seen !== undefined && seen.epoch >= state.epoch) {
      if (seen.epoch === state.epoch && seen.number === 1 && seen.nonce === this.options.nonce) {
        this.part = 0;
        this.state = { kind: "ready", epoch: state.epoch, number: 1 };
        if (this.failedAt !== "ready") this.worked();
        this.options.rewind();
        return;
      }
      state.epoch = seen.epoch + 1;
      state.sentAt = undefined;
    }
    const now = this.options.clock.now();
    if (state.sentAt !== undefined && now - state.sentAt < MARKER_RESEND_MS) return;
    state.sentAt = now;
    const header = this.header(state.epoch, 1, cursor, 1, true, false);
    this.transmit(header, encodeMessage({ ...header, frame: new Uint8Array(0) }));
  }

  private transmit(header: MessageHeader, data: Uint8Array): void {
    const attempt = this.attempt;
    this.inFlight++;
    this.inFlightBytes += data.length;
    const sentAt = this.options.clock.now();
    const id = `${header.origin}-${header.nonce}-${header.epoch}-${header.number}`;
    this.options.stream.publish(data, id).then(
      () => this.answered(data.length, this.options.clock.now() - sentAt),
      (error) => this.fail(attempt, error),
    ).finally(() => {
      this.inFlight--;
      this.inFlightBytes -= data.length;
      this.transmitUnsent();
      this.options.wake();
    });
  }

  /** A window of soon answers doubles it, one of late answers halves it. */
  private answered(bytes: number, ms: number): void {
    if (ms < SOON_MS) this.windowBytes = Math.min(WINDOW_BYTES, this.windowBytes + bytes);
    else if (ms > LATE_MS) this.windowBytes = Math.max(LEAST_WINDOW_BYTES, this.windowBytes - bytes / 2);
  }

  private worked(): void {
    [this.failures, this.failing] = [0, undefined];
  }

  /** A failed publish says nothing about whether the message was stored: only the stream does. */
  private fail(attempt: number, error: unknown): void {
    if (attempt !== this.attempt) return;
    const said = ++this.failures === FAILURES_SAID;
    if (this.failures >= FAILURES_SAID) this.failing = `publishing fails, and is tried again: ${String(error)}`;
    this.failedAt = this.state.kind;
    this.options.log[said ? "warn" : "debug"]("publish failed", {
      stream: this.options.stream.name,
      error: String(error),
    });
    this.notBefore = this.options.clock.now() + RETRY_MS;
    if (this.state.kind === "marking") this.state.sentAt = undefined;
    else this.restart("a publish failed");
  }
}
