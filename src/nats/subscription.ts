/** The life of one ordered push consumer: messages in sequence order without gaps, then the reason it ended. */
import { AckPolicy, DeliverPolicy, type JetStreamManager } from "@nats-io/jetstream";
import { createInbox, type Msg, nanos, nuid, type Subscription as NatsSubscription } from "@nats-io/transport-node";
import type { StreamMessage, Subscription } from "../change_stream.ts";
import { StreamGapError, SubscriptionLostError } from "../errors.ts";
import type { NatsLink } from "./connect.ts";
import type { EndTurn } from "./turns.ts";

const HEARTBEAT_MS = 2_000;
/** two of these without a sign of life, and the consumer is gone (its server died, while ours lives) */
const SILENCE_TICK_MS = 3_000;
/** the server forgets a consumer this long after its client vanished */
const INACTIVE_THRESHOLD_MS = 10_000;
const NANO_DIGITS_BELOW_MS = 6;
const CONTROL_STATUS = 100;
const FLOW_CONTROL = "flowcontrol request";

/** Of the reply subject of a delivery: $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<deliveries>.<these> */
interface Delivery {
  readonly streamSequence: number;
  readonly consumerSequence: number;
  readonly time: number;
  /** how many messages of the stream come after it */
  readonly behind: number;
}

/** What is received, in order: messages, and the server's requests for flow control between them. */
type Received = { readonly message: StreamMessage } | { readonly flowControl: Msg };

/** Confirms that a message is gone. Rejects when it can't tell. */
export type GapCheck = (sequence: number, received: number) => Promise<StreamGapError | undefined>;

/**
 * Memory is bounded by the server: it sends at most 32 MiB (JetStream's flow control window) beyond the last answered
 * request for flow control, and a request is answered only when everything before it was taken. That is for one shard; what
 * all together may have is said in turns.ts.
 */
export class PushSubscription implements Subscription {
  readonly #queue: Received[] = [];
  /** index of the first entry of #queue that is not handed out; 0 outside of take */
  #head = 0;
  /** how many of the entries of #queue are messages */
  #messages = 0;
  /** sequence of the next message wanted */
  #next: number;
  #consumerSequence = 0;
  #ended: Error | undefined;
  #checking = false;
  #wake: (() => void) | undefined;
  #silentTicks = 0;
  /** received, bytes */
  #received = 0;
  /** of these, not taken yet */
  #held = 0;
  /** was the last message received the stream's last? */
  #caughtUp = false;
  readonly #watch: ReturnType<typeof setInterval>;
  /** the server sends nothing before it is there */
  #inbox: NatsSubscription | undefined;
  readonly #offLink: () => void;
  readonly #consumer = `marmot_${nuid.next()}`;
  readonly #subject: string;

  private constructor(
    private readonly link: NatsLink,
    private readonly manager: JetStreamManager,
    private readonly stream: string,
    sequence: number,
    private readonly gapCheck: GapCheck,
    private endTurn: EndTurn | undefined,
  ) {
    this.#next = sequence;
    this.#subject = createInbox();
    // ended at the reconnect rather than at the loss: then subscribing again works at once
    this.#offLink = link.onChange((connected) => {
      // else the server would go on with it on the next connection, megabytes in front of everything else
      if (!connected) this.#unlisten();
      if (connected || link.closed) this.#lose("the connection was lost");
    });
    this.#watch = setInterval(() => this.#tick(), SILENCE_TICK_MS);
  }

  /** @param endTurn of one that had to wait for its turn: called when it has caught up, or is closed */
  static async open(
    link: NatsLink,
    manager: JetStreamManager,
    stream: string,
    sequence: number,
    gapCheck: GapCheck,
    endTurn: EndTurn | undefined,
  ): Promise<PushSubscription> {
    const subscription = new PushSubscription(link, manager, stream, sequence, gapCheck, endTurn);
    try {
      await subscription.#createConsumer();
      return subscription;
    } catch (error) {
      await subscription.close();
      throw error;
    }
  }

  async take(maxBytes: number, signal: AbortSignal): Promise<StreamMessage[]> {
    signal.throwIfAborted();
    this.#listen();
    while (this.#messages === 0) {
      this.#answerFlowControl();
      this.#queue.length = 0;
      this.#head = 0;
      if (this.#ended !== undefined) throw this.#ended;
      await this.#arrival(signal);
    }
    const taken: StreamMessage[] = [];
    let bytes = 0;
    while (this.#messages > 0) {
      this.#answerFlowControl();
      const received = this.#queue[this.#head];
      if (received === undefined || !("message" in received)) break;
      bytes += received.message.data.length;
      if (taken.length > 0 && bytes > maxBytes) break;
      taken.push(received.message);
      this.#hold(-received.message.data.length);
      this.#head++;
      this.#messages--;
    }
    this.#answerFlowControl();
    this.#queue.splice(0, this.#head);
    this.#head = 0;
    if (this.#caughtUp && this.#messages === 0) this.#leaveTurn();
    return taken;
  }

  async close(): Promise<void> {
    const wasLive = this.#ended === undefined;
    this.#lose("it was closed");
    this.#queue.length = 0;
    this.#head = 0;
    this.#messages = 0;
    this.#hold(-this.#held);
    this.#leaveTurn();
    // otherwise the server forgets it after INACTIVE_THRESHOLD_MS
    if (wasLive) await this.link.farewell(() => this.manager.consumers.delete(this.stream, this.#consumer));
  }

  async #createConsumer(): Promise<void> {
    await this.link.request(() =>
      this.manager.consumers.add(this.stream, {
        name: this.#consumer,
        deliver_subject: this.#subject,
        deliver_policy: DeliverPolicy.StartSequence,
        opt_start_seq: this.#next,
        ack_policy: AckPolicy.None,
        max_deliver: 1,
        flow_control: true,
        idle_heartbeat: nanos(HEARTBEAT_MS),
        inactive_threshold: nanos(INACTIVE_THRESHOLD_MS),
        mem_storage: true,
        num_replicas: 1,
      })
    );
  }

  /**
   * Only once messages are wanted: on a slow link the first megabytes of them would be in front of the answer to whatever
   * is asked before.
   */
  #listen(): void {
    if (this.#inbox !== undefined || this.#ended !== undefined) return;
    this.#silentTicks = 0;
    this.#inbox = this.link.connection.subscribe(this.#subject, {
      callback: (error, message) => error === null ? this.#receive(message) : this.#lose(error.message),
    });
  }

  #unlisten(): void {
    if (this.#inbox?.isClosed() === false) this.#inbox.unsubscribe();
  }

  /** Resolves when something arrived or it ended. */
  #arrival(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const abort = (): void => {
        this.#wake = undefined;
        reject(signal.reason);
      };
      signal.addEventListener("abort", abort, { once: true });
      this.#wake = () => {
        this.#wake = undefined;
        signal.removeEventListener("abort", abort);
        resolve();
      };
    });
  }

  /** Answers the requests at the head of the queue: all before them was taken. */
  #answerFlowControl(): void {
    for (;;) {
      const received = this.#queue[this.#head];
      if (received === undefined || !("flowControl" in received)) return;
      this.#head++;
      if (this.#ended === undefined && this.link.connected) received.flowControl.respond();
    }
  }

  #receive(message: Msg): void {
    if (this.#ended !== undefined || this.#checking) return;
    this.#silentTicks = 0;
    const delivery = deliveryOf(message.reply);
    if (delivery === undefined) return this.#receiveStatus(message);
    if (delivery.consumerSequence !== this.#consumerSequence + 1) return this.#lose("a delivery was missed");
    if (delivery.streamSequence !== this.#next) return this.#check(delivery.streamSequence);
    this.#consumerSequence++;
    this.#next++;
    const { data } = message;
    // nats.js gives Buffers, whose slice and toString are not those of the Uint8Array that was promised
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    this.#queue.push({ message: { sequence: delivery.streamSequence, time: delivery.time, data: bytes } });
    this.#messages++;
    this.#received += bytes.length;
    this.#hold(bytes.length);
    this.#caughtUp = delivery.behind === 0;
    this.#wake?.();
    this.#share();
  }

  #hold(bytes: number): void {
    this.#held += bytes;
    if (this.endTurn === undefined) this.link.turns.held += bytes;
  }

  /** Only once nothing is held. */
  #leaveTurn(): void {
    this.endTurn?.();
    this.endTurn = undefined;
  }

  /** What was received is handed out all the same; the rest is read again when it is its turn. */
  #share(): void {
    const { turns } = this.link;
    if (this.endTurn === undefined) {
      if (turns.isTooMuch(this.#held)) this.#lose("more came than can be held");
    } else if (turns.isOver(this.#received)) this.#lose("it is another shard's turn");
  }

  #receiveStatus(message: Msg): void {
    const status = message.headers;
    if (status?.code !== CONTROL_STATUS) {
      return this.#lose(`the server ended it: ${status?.description ?? "no reason"}`);
    }
    if (status.description.toLowerCase() === FLOW_CONTROL) {
      this.#queue.push({ flowControl: message });
      if (this.#messages === 0) this.#wake?.();
      return;
    }
    // a heartbeat: it tells what was sent last, so a loss at the end is seen too
    const delivered = Number(status.get("Nats-Last-Consumer") || "0");
    if (delivered !== this.#consumerSequence) return this.#lose("a delivery was missed");
    if (Number(status.get("Nats-Last-Stream") || "0") >= this.#next) return this.#check(this.#next);
    // the answer to a request for flow control may have been lost: the server stalls and names the subject it waits for
    const stalled = status.get("Nats-Consumer-Stalled");
    if (this.#queue.length > 0) return;
    if (stalled !== "") this.link.connection.publish(stalled);
    else this.#leaveTurn();
  }

  /** The stream went on without `#next`: is that message gone, or was it just not delivered? */
  #check(received: number): void {
    this.#checking = true;
    this.gapCheck(this.#next, received).then(
      (gap) => gap === undefined ? this.#lose("a delivery was missed") : this.#end(gap),
      (error: unknown) => this.#lose(error instanceof Error ? error.message : String(error)),
    );
  }

  /** Counted in ticks, not in time: one late tick after a blocked event loop proves nothing. */
  #tick(): void {
    if (!this.link.connected) this.#silentTicks = 0;
    else if (++this.#silentTicks > 2) this.#lose("the consumer fell silent");
  }

  #lose(state: string): void {
    if (this.#ended !== undefined) return;
    this.#end(new SubscriptionLostError(`Cannot go on reading ${this.stream} at sequence ${this.#next}: ${state}`));
  }

  #end(reason: Error): void {
    if (this.#ended !== undefined) return;
    this.#ended = reason;
    clearInterval(this.#watch);
    this.#offLink();
    this.#unlisten();
    this.#wake?.();
  }
}

/** @returns undefined for what is no delivery of a message */
function deliveryOf(reply: string | undefined): Delivery | undefined {
  if (reply === undefined || !reply.startsWith("$JS.ACK.")) return undefined;
  const tokens = reply.split(".");
  const at = tokens.length === 9 ? 5 : 7;
  const [streamSequence, consumerSequence, nanoseconds, behind] = tokens.slice(at);
  if (streamSequence === undefined || consumerSequence === undefined || nanoseconds === undefined) return undefined;
  return {
    streamSequence: Number(streamSequence),
    consumerSequence: Number(consumerSequence),
    // cut as text: a number holds no nanoseconds since 1970
    time: Number(nanoseconds.slice(0, -NANO_DIGITS_BELOW_MS)),
    behind: Number(behind),
  };
}
