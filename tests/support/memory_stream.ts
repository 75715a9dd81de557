/** A stream of one shard in memory, and the network in front of it: what was published arrives when the test says so. */
import { createHash } from "node:crypto";
import type { Broker } from "../../src/broker.ts";
import type {
  ChangeStream,
  MessageIdentity,
  StreamMessage,
  StreamState,
  Subscription,
} from "../../src/change_stream.ts";
import { StreamGapError } from "../../src/errors.ts";

/** A message on its way; the publisher waits for an answer. */
interface Travelling {
  readonly data: Uint8Array;
  readonly answer: (sequence: number) => void;
  readonly fail: (error: Error) => void;
}

export class MemoryStream implements ChangeStream {
  readonly messages: StreamMessage[] = [];
  readonly network: Travelling[] = [];
  connected = true;
  /** what is published is stored at once */
  direct = false;
  private arrived = Promise.withResolvers<void>();

  constructor(readonly name: string, readonly maxPayload = 1024 * 1024) {}

  state(): Promise<StreamState> {
    const last = this.messages.length;
    return Promise.resolve({ firstSequence: 1, lastSequence: last, bytes: 0, maxBytes: -1 });
  }

  publish(data: Uint8Array): Promise<number> {
    if (data.length > this.maxPayload) return Promise.reject(new Error(`${data.length} bytes are too many`));
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    this.network.push({ data: data.slice(), answer: resolve, fail: reject });
    if (this.direct) this.flush();
    return promise;
  }

  /** The message at this place of the network is stored, and the publisher hears of it. */
  deliver(place = 0): void {
    const [{ data, answer }] = this.network.splice(place, 1) as [Travelling];
    this.messages.push({ sequence: this.messages.length + 1, time: this.messages.length, data });
    this.arrived.resolve();
    this.arrived = Promise.withResolvers();
    answer(this.messages.length);
  }

  /** Never arrives, or not again. */
  lose(place = 0): void {
    this.network.splice(place, 1)[0]!.fail(new Error("no answer"));
  }

  /** Delivers all that is on its way, in order. */
  flush(): void {
    while (this.network.length > 0) this.deliver();
  }

  subscribe(sequence: number): Promise<Subscription> {
    if (sequence > this.messages.length + 1) {
      return Promise.reject(new StreamGapError(this.name, sequence, 1, this.messages.length));
    }
    let next = sequence;
    const take = async (_maxBytes: number, signal: AbortSignal) => {
      while (next > this.messages.length) await untilAborted(this.arrived.promise, signal);
      const taken = this.messages.slice(next - 1);
      next = this.messages.length + 1;
      return taken;
    };
    return Promise.resolve({ take, close: () => Promise.resolve() });
  }

  identity(sequence: number): Promise<MessageIdentity | undefined> {
    const message = this.messages[sequence - 1];
    if (message === undefined) return Promise.resolve(undefined);
    const digest = createHash("sha256").update(message.data).digest("hex").slice(0, 32);
    return Promise.resolve({ digest, time: message.time });
  }
}

function untilAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  return Promise.race([promise, aborted]);
}

/**
 * @param leased gets the node ids that ask for a lease
 * @param listeners those who are told of the connection
 */
export function memoryBroker(
  stream: MemoryStream,
  leased: string[] = [],
  listeners = new Set<(connected: boolean) => void>(),
): Broker {
  stream.direct = true;
  return {
    streams: [stream],
    registry: {
      agreeShards: () => Promise.resolve(),
      agreePlacement: (_table, proposal) => Promise.resolve(proposal),
      lease(id) {
        leased.push(id);
        return Promise.resolve({ lost: new AbortController().signal, release: () => Promise.resolve() });
      },
    },
    description: "memory",
    onConnection(listener) {
      listeners.add(listener);
      listener(true);
      return () => void listeners.delete(listener);
    },
    close: () => Promise.resolve(),
  };
}
