/** A shard's stream on JetStream. */
import { createHash } from "node:crypto";
import { jetstream, type JetStreamClient, type JetStreamManager } from "@nats-io/jetstream";
import type { ChangeStream, MessageIdentity, StreamState, Subscription } from "../change_stream.ts";
import { StreamGapError } from "../errors.ts";
import type { NatsLink } from "./connect.ts";
import { JETSTREAM, jetStreamCode } from "./failure.ts";
import { PushSubscription } from "./subscription.ts";
import type { EndTurn } from "./turns.ts";

/** the answer to a publish; a quorum that takes longer is being elected */
const PUBLISH_TIMEOUT_MS = 5_000;
/** of max_payload, for the headers of a message: its id and the stream's name */
const HEADER_MARGIN_BYTES = 1_024;
const DIGEST_BYTES = 16;

export class JetStreamChangeStream implements ChangeStream {
  readonly #client: JetStreamClient;

  /** @param name of the stream, which exists; @param subject its only one */
  constructor(
    private readonly link: NatsLink,
    private readonly manager: JetStreamManager,
    readonly name: string,
    private readonly subject: string,
  ) {
    this.#client = jetstream(link.connection);
  }

  get maxPayload(): number {
    return this.link.maxPayload - HEADER_MARGIN_BYTES;
  }

  get connected(): boolean {
    return this.link.connected;
  }

  async state(): Promise<StreamState> {
    const { state, config } = await this.link.request(() => this.manager.streams.info(this.name));
    return {
      // an empty stream that never had a message says 0 to 0
      firstSequence: state.messages === 0 ? state.last_seq + 1 : state.first_seq,
      lastSequence: state.last_seq,
      bytes: state.bytes,
      maxBytes: config.max_bytes > 0 ? config.max_bytes : -1,
    };
  }

  async publish(data: Uint8Array, id: string): Promise<number> {
    const ack = await this.link.request(() =>
      this.#client.publish(this.subject, data, {
        msgID: id,
        timeout: PUBLISH_TIMEOUT_MS,
        expect: { streamName: this.name },
      })
    );
    return ack.seq;
  }

  async subscribe(sequence: number): Promise<Subscription> {
    const endTurn = await this.#turn(await this.#behind(sequence));
    return await PushSubscription.open(
      this.link,
      this.manager,
      this.name,
      sequence,
      (wanted, received) => this.#gapAt(wanted, received),
      endTurn,
    );
  }

  /** @returns undefined for a shard that need not wait */
  async #turn(behind: number): Promise<EndTurn | undefined> {
    const { turns } = this.link;
    if (!turns.isDue(behind)) return undefined;
    const turn = turns.take();
    try {
      return await this.link.request(() => turn);
    } catch (error) {
      // it may come all the same
      void turn.then((end) => end());
      throw error;
    }
  }

  async identity(sequence: number): Promise<MessageIdentity | undefined> {
    if (sequence < 1) return undefined;
    // from the stream's leader, not a direct get: a replica that lags would say that there is no such message
    const stored = await this.link.request(() => this.#stored(sequence));
    if (stored === undefined) return undefined;
    const digest = createHash("sha256").update(stored.data).digest("hex").slice(0, 2 * DIGEST_BYTES);
    return { digest, time: millisecondsOf(stored.timestamp) };
  }

  /**
   * A server takes a start that the stream doesn't hold for the nearest it holds, without a word.
   * @returns about how many bytes the stream has from there on
   */
  async #behind(sequence: number): Promise<number> {
    const { firstSequence, lastSequence, bytes } = await this.#stateOrNothing();
    if (sequence < firstSequence || sequence > lastSequence + 1) {
      throw new StreamGapError(this.name, sequence, firstSequence, lastSequence);
    }
    return bytes * (lastSequence - sequence + 1) / Math.max(1, lastSequence - firstSequence + 1);
  }

  /** @returns the error if the message `wanted` is gone, undefined if it is there */
  async #gapAt(wanted: number, received: number): Promise<StreamGapError | undefined> {
    const { firstSequence, lastSequence } = await this.#stateOrNothing();
    const inside = firstSequence <= wanted && wanted <= lastSequence;
    if (received >= wanted && inside && await this.link.request(() => this.#stored(wanted)) !== undefined) {
      return undefined;
    }
    return new StreamGapError(this.name, wanted, Math.max(firstSequence, received), lastSequence);
  }

  /** A stream that was deleted holds nothing. */
  async #stateOrNothing(): Promise<StreamState> {
    try {
      return await this.state();
    } catch (error) {
      if (jetStreamCode(error) !== JETSTREAM.streamNotFound) throw error;
      return { firstSequence: 1, lastSequence: 0, bytes: 0, maxBytes: -1 };
    }
  }

  async #stored(sequence: number): Promise<{ data: Uint8Array; timestamp: string } | undefined> {
    try {
      return await this.manager.streams.getMessage(this.name, { seq: sequence }) ?? undefined;
    } catch (error) {
      if (jetStreamCode(error) === JETSTREAM.messageNotFound) return undefined;
      throw error;
    }
  }
}

/** RFC 3339 with nanoseconds, cut to ms as a delivery's time is: runtimes round or cut the rest as they like. */
function millisecondsOf(timestamp: string): number {
  return Date.parse(timestamp.replace(/(\.\d{3})\d+/, "$1"));
}
