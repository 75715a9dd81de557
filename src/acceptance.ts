/**
 * The acceptance rule. As in Kafka's idempotent producer, a message counts only if it is the next of its origin's
 * process and epoch, or the first of a higher epoch. It depends on nothing but the stream's prefix, so all nodes agree.
 */
import type { Message, MessageHeader } from "./change.ts";

/** The last message accepted from an origin. */
export interface Seen {
  readonly nonce: string;
  readonly epoch: number;
  readonly number: number;
}

export interface Verdict {
  readonly accepted: boolean;
  /** a higher epoch began: parts of the origin's unfinished batch are void */
  readonly newEpoch: boolean;
  /** what has been accepted from the origin, this message included */
  readonly seen: Seen | undefined;
}

/** What a shard has accepted so far, by origin. Given messages in stream order. */
export class Acceptance {
  private readonly seen: Map<string, Seen>;

  constructor(seen: ReadonlyMap<string, Seen>) {
    this.seen = new Map(seen);
  }

  of(origin: string): Seen | undefined {
    return this.seen.get(origin);
  }

  accept(message: MessageHeader): Verdict {
    const last = this.seen.get(message.origin);
    const newEpoch = message.epoch > (last?.epoch ?? 0) && message.number === 1;
    const next = last !== undefined && message.epoch === last.epoch && message.nonce === last.nonce &&
      message.number === last.number + 1;
    if (!newEpoch && !next) return { accepted: false, newEpoch: false, seen: last };
    const seen = { nonce: message.nonce, epoch: message.epoch, number: message.number };
    this.seen.set(message.origin, seen);
    return { accepted: true, newEpoch, seen };
  }
}

/** A message of the stream, decoded and judged, on its way to apply. */
export interface Delivery {
  readonly sequence: number;
  /** when the stream stored it, ms since 1970 */
  readonly time: number;
  readonly data: Uint8Array;
  readonly message: Message;
  readonly verdict: Verdict;
}
