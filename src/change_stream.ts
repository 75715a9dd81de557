/** What the core asks of the log that orders one shard: a JetStream stream, or the simulation's. */

export interface StreamMessage {
  /** stream sequence, from 1 */
  readonly sequence: number;
  /** when the stream stored it, ms since 1970 */
  readonly time: number;
  readonly data: Uint8Array;
}

/** Bounds and size of a stream. An empty stream has first = last + 1. */
export interface StreamState {
  readonly firstSequence: number;
  readonly lastSequence: number;
  readonly bytes: number;
  /** -1: unlimited */
  readonly maxBytes: number;
}

/** Who a message is, to notice a stream that lost its tail and grew again: sha256 of its data, and its time. */
export interface MessageIdentity {
  /** first 16 bytes of sha256 over the data, in hex */
  readonly digest: string;
  readonly time: number;
}

/** Messages in sequence order without gaps, or an error. */
export interface Subscription {
  /**
   * All messages that have arrived, in order, at least one: waits for it. Stops collecting above `maxBytes` (one larger
   * message is returned alone). Rejects with StreamGapError when a message after the last one is gone, with
   * SubscriptionLostError when the subscription can't go on (subscribe again from the next sequence), with the signal's
   * reason when aborted.
   */
  take(maxBytes: number, signal: AbortSignal): Promise<StreamMessage[]>;
  close(): Promise<void>;
}

export interface ChangeStream {
  readonly name: string;
  /** largest `data` that a message may have, in bytes */
  readonly maxPayload: number;
  /** false while the broker is away; publish and state then fail at once */
  readonly connected: boolean;
  state(): Promise<StreamState>;
  /**
   * Resolves with the stream sequence once the quorum stored it. A rejection says nothing: the message may be stored
   * now, later, or never.
   * @param id the same for the same message sent again
   */
  publish(data: Uint8Array, id: string): Promise<number>;
  /** Messages from `sequence` on. Rejects with StreamGapError if `sequence` is below the stream's first message. */
  subscribe(sequence: number): Promise<Subscription>;
  /** undefined when the stream holds no message of that sequence */
  identity(sequence: number): Promise<MessageIdentity | undefined>;
}
