/** One process's connection to the broker, over a network that loses, delays and doubles as the history wants. */
import type { Agreement, Broker, Lease } from "../../src/broker.ts";
import type {
  ChangeStream,
  MessageIdentity,
  StreamMessage,
  StreamState,
  Subscription,
} from "../../src/change_stream.ts";
import { BrokerUnreachableError, EXIT, MarmotError, StreamGapError, SubscriptionLostError } from "../../src/errors.ts";
import type { Random } from "../support/random.ts";
import type { ClusterBroker, ClusterStream } from "./cluster_broker.ts";
import type { Counters } from "./counters.ts";
import { never, type VirtualTime } from "./virtual_time.ts";

/** A request without an answer fails after this, ms */
const TIMEOUT_MS = 5_000;
/** A dead connection is noticed after this, and made again, ms */
const NOTICED_MS = 2_000;
const RECONNECT_MS = 250;
/** A late message comes up to this late, ms */
const LATE_MS = 30_000;

/** What the network does, as probabilities for each message; all 0: it works. */
export interface Weather {
  lost: number;
  answerLost: number;
  doubled: number;
  late: number;
  /** usual delay, ms */
  latency: number;
}

export interface LinkOptions {
  readonly broker: ClusterBroker;
  readonly time: VirtualTime;
  readonly random: Random;
  readonly weather: Weather;
  /** what the node's processes published and the network holds back */
  readonly held: (() => void)[];
  readonly counters: Counters;
  readonly maxPayload: number;
  /** the process may be killed here; throws then */
  readonly crashPoint: () => void;
  readonly isDead: () => boolean;
}

interface Waiting {
  fail(error: Error): void;
}

export class Link implements Broker {
  readonly description = "simulated";
  readonly streams: readonly ChangeStream[];
  connected = true;
  /** nothing gets through in either direction */
  private cut = false;
  private readonly listeners = new Set<(connected: boolean) => void>();
  private readonly waiting = new Set<Waiting>();
  private readonly subscriptions = new Set<SimulatedSubscription>();
  private lastArrival = 0;
  private lastDelivery = 0;
  /** what happened to the connection since makes older notices void */
  private life = 0;

  constructor(readonly options: LinkOptions) {
    this.streams = options.broker.streams.map((stream) => new LinkStream(this, stream));
  }

  readonly registry = {
    agreeShards: () => Promise.resolve(),
    agreePlacement: (table: string, proposal: Agreement) =>
      this.registered(() => this.options.broker.agreePlacement(table, proposal)),
    lease: (nodeId: string, _: string, holder: string) => this.lease(nodeId, holder),
  };

  onConnection(listener: (connected: boolean) => void): () => void {
    this.listeners.add(listener);
    listener(this.connected);
    return () => void this.listeners.delete(listener);
  }

  close(): Promise<void> {
    this.listeners.clear();
    this.drop("closed");
    return Promise.resolve();
  }

  get reachable(): boolean {
    return !this.cut && this.options.broker.up;
  }

  /** Cuts the connection: it is noticed later, and what is under way is lost. */
  break(): void {
    if (this.cut) return;
    this.cut = true;
    this.later(NOTICED_MS, () => this.noticeLoss());
  }

  mend(): void {
    if (!this.cut) return;
    this.cut = false;
    this.comeBack();
  }

  /** The broker ended: its clients see it at once, and nothing comes on the old connection any more. */
  brokerEnded(): void {
    for (const subscription of this.subscriptions) subscription.cutOff();
    this.noticeLoss();
  }

  comeBack(): void {
    this.later(RECONNECT_MS, () => {
      if (!this.reachable || this.options.isDead()) return;
      for (const subscription of [...this.subscriptions]) subscription.lose("the connection was lost");
      if (this.connected) return;
      this.connected = true;
      this.tell();
    });
  }

  private noticeLoss(): void {
    if (!this.connected) return;
    this.connected = false;
    this.drop("the connection was lost");
    this.tell();
  }

  private drop(why: string): void {
    const waiting = [...this.waiting];
    this.waiting.clear();
    for (const one of waiting) one.fail(new Error(why));
    if (why === "closed") { for (const subscription of [...this.subscriptions]) subscription.lose(why); }
  }

  private tell(): void {
    for (const listener of [...this.listeners]) listener(this.connected);
  }

  private later(delay: number, action: () => void): void {
    const life = ++this.life;
    this.options.time.after(delay, () => life === this.life && !this.options.isDead() && action());
  }

  /** Asks the broker. An answer that does not come is an error, which says nothing of whether it was done. */
  ask<T>(handle: () => T, isPublish = false): Promise<T> {
    const { time, isDead, crashPoint } = this.options;
    crashPoint();
    if (isDead()) return never();
    if (!this.connected) return Promise.reject(new Error("the broker is away"));
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const done = (settle: () => void) => {
      if (!this.waiting.delete(waiting) || isDead()) return;
      timer.cancel();
      settle();
    };
    const waiting = { fail: (error: Error) => (timer.cancel(), isDead() || reject(error)) };
    this.waiting.add(waiting);
    const timer = time.after(TIMEOUT_MS, () => done(() => reject(new Error("no answer"))));
    this.travel(isPublish, () => {
      let settle: () => void;
      try {
        const value = handle();
        settle = () => resolve(value);
      } catch (error) {
        settle = () => reject(error);
      }
      this.answer(() => done(settle));
    });
    return promise;
  }

  /** On the way to the broker. */
  private travel(isPublish: boolean, arrive: () => void): void {
    const { time, random, weather, counters, held } = this.options;
    const reach = () => this.reachable && arrive();
    if (isPublish) {
      if (random.next() < weather.lost) return void counters.add("publishes lost");
      if (random.next() < weather.late) {
        counters.add("publishes delayed");
        const comes = () => this.options.broker.up && arrive();
        return void (random.below(2) === 0 ? held.push(comes) : time.after(random.next() * LATE_MS, comes));
      }
      if (random.next() < weather.doubled) {
        counters.add("publishes doubled");
        time.after(random.next() * random.pick([10, 1000, LATE_MS]), () => this.options.broker.up && arrive());
      }
    }
    this.lastArrival = Math.max(this.lastArrival, time.now + this.delay());
    time.after(this.lastArrival - time.now, reach);
  }

  /** What was held back comes about when somebody who starts to publish asks for the stream's end. */
  letHeldCome(): void {
    const { time, random, weather, held } = this.options;
    for (const comes of held.splice(0)) time.after(weather.latency * random.next() * random.pick([1, 4, 20]), comes);
  }

  private answer(arrive: () => void): void {
    const { time, random, weather, counters } = this.options;
    if (!this.reachable) return;
    if (random.next() < weather.answerLost) return void counters.add("answers lost");
    const slow = random.next() < weather.answerLost ? LATE_MS / 6 : 0;
    time.after(this.delay() + slow * random.next(), () => this.reachable && arrive());
  }

  private delay(): number {
    const { random, weather } = this.options;
    const x = random.next();
    return weather.latency * (x < 0.9 ? x : 10 * x);
  }

  /** The broker sends something by itself, in order. */
  deliver(arrive: () => void): void {
    const { time, isDead } = this.options;
    this.lastDelivery = Math.max(this.lastDelivery, time.now + this.delay());
    time.after(this.lastDelivery - time.now, () => this.reachable && !isDead() && arrive());
  }

  open(stream: ClusterStream, sequence: number): Promise<Subscription> {
    return this.ask(() => {
      stream.from(sequence);
      const subscription = new SimulatedSubscription(
        this,
        stream,
        sequence,
        () => this.subscriptions.delete(subscription),
      );
      this.subscriptions.add(subscription);
      subscription.pump();
      return subscription;
    });
  }

  /** As the adapter for NATS does it: what may work later is an error of its own. */
  private async registered<T>(handle: () => T): Promise<T> {
    try {
      return await this.ask(handle);
    } catch (error) {
      if (error instanceof MarmotError) throw error;
      throw new BrokerUnreachableError(String(error));
    }
  }

  private lease(nodeId: string, holder: string): Promise<Lease> {
    const { leases } = this.options.broker;
    const lost = new AbortController();
    return this.registered(() => {
      const held = leases.get(nodeId) ?? holder;
      if (held !== holder) throw new MarmotError(`Cannot run as node ${nodeId}: another does.`, EXIT.conflict);
      leases.set(nodeId, holder);
      return { lost: lost.signal, release: () => Promise.resolve() };
    });
  }
}

class LinkStream implements ChangeStream {
  readonly name: string;
  constructor(private readonly link: Link, private readonly stream: ClusterStream) {
    this.name = stream.name;
  }

  get maxPayload(): number {
    return this.link.options.maxPayload;
  }

  get connected(): boolean {
    return this.link.connected;
  }

  state(): Promise<StreamState> {
    const asked = this.link.ask(() => this.stream.state());
    this.link.letHeldCome();
    return asked;
  }

  publish(data: Uint8Array): Promise<number> {
    const { time, counters } = this.link.options;
    if (data.length > this.maxPayload) return Promise.reject(new Error(`${data.length} bytes are too many`));
    const copy = data.slice();
    counters.add("publishes");
    return this.link.ask(() => this.stream.append(copy, time.now), true);
  }

  subscribe(sequence: number): Promise<Subscription> {
    return this.link.open(this.stream, sequence);
  }

  identity(sequence: number): Promise<MessageIdentity | undefined> {
    return this.link.ask(() => this.stream.identity(sequence));
  }
}

class SimulatedSubscription implements Subscription {
  private readonly arrived: StreamMessage[] = [];
  private ended: Error | undefined;
  private wake = Promise.withResolvers<void>();
  private readonly silence: () => void;
  private pumping = false;
  private isCutOff = false;

  /** @param next the sequence that the broker sends next */
  constructor(
    private readonly link: Link,
    private readonly stream: ClusterStream,
    private next: number,
    private readonly forget: () => void,
  ) {
    this.silence = stream.listen(() => this.pump());
  }

  /** The broker sends what there is. */
  pump(): void {
    if (this.pumping || this.isCutOff || this.ended !== undefined || this.next > this.stream.end) return;
    this.pumping = true;
    this.link.deliver(() => {
      this.pumping = false;
      if (this.isCutOff || this.ended !== undefined) return;
      try {
        const messages = this.stream.from(this.next).slice(0, 1 + this.link.options.random.below(20));
        this.arrived.push(...messages);
        this.next += messages.length;
      } catch (error) {
        this.end(error as Error);
      }
      this.ring();
      this.pump();
    });
  }

  async take(_maxBytes: number, signal: AbortSignal): Promise<StreamMessage[]> {
    this.link.options.crashPoint();
    signal.throwIfAborted();
    const { promise: aborted, reject } = Promise.withResolvers<never>();
    const abort = () => reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    try {
      while (this.arrived.length === 0) {
        if (this.ended !== undefined) throw this.ended;
        await Promise.race([this.wake.promise, aborted]);
      }
      return this.arrived.splice(0);
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  close(): Promise<void> {
    this.end(new SubscriptionLostError("closed"));
    return Promise.resolve();
  }

  /** Its connection is gone; it ends when there is another one. */
  cutOff(): void {
    this.isCutOff = true;
  }

  lose(why: string): void {
    this.end(new SubscriptionLostError(why));
    this.ring();
  }

  private end(error: Error): void {
    this.ended ??= error instanceof StreamGapError ? error : new SubscriptionLostError(error.message);
    this.silence();
    this.forget();
  }

  private ring(): void {
    this.wake.resolve();
    this.wake = Promise.withResolvers();
  }
}
