/** A Marmot process of a simulated node: the real thing, with a clock, a network and a connection that the history holds. */
import type { Broker } from "../../src/broker.ts";
import type { Database } from "../../src/database.ts";
import { BrokerUnreachableError, EXIT, MarmotError } from "../../src/errors.ts";
import { type NodeOptions, RunningNode } from "../../src/marmot.ts";
import { lockPlace, type NodePlace, type PlaceLock } from "../../src/place.ts";
import type { Log, LogFields, Runtime } from "../../src/runtime.ts";
import type { Watcher } from "../../src/watcher.ts";
import { Killed, surrounded } from "./connection.ts";
import { Link, type Weather } from "./link.ts";
import type { SimulatedNode } from "./node.ts";
import { Violation } from "./violation.ts";
import { never } from "./virtual_time.ts";

/** Answers of a broker that can't be reached, ms */
const UNREACHABLE_MS = 2_000;
/** A turn of the event loop, and how late timers are, ms */
const TURN_MS = 1;
const LATE_TIMER_MS = 1;

/** What one turn may need */
const TURN_STATEMENTS = 200_000;

/** How long a process's own work takes, ms: a statement. */
export interface Speed {
  readonly statement: number;
}

export interface ProcessOptions {
  readonly node: SimulatedNode;
  readonly weather: Weather;
  readonly speed: Speed;
  readonly maxPayload: number;
  readonly frameBytes: number | undefined;
}

class Running extends RunningNode {
  protected override readonly frameBytes: number | undefined;

  constructor(given: NodeOptions, place: NodePlace, lock: PlaceLock, private readonly process: SimulatedProcess) {
    super(given, place, lock);
    this.frameBytes = process.options.frameBytes;
  }

  protected override open(): Database {
    const db = super.open();
    if (!this.process.options.node.world.setting.wal) db.exec("PRAGMA journal_mode = MEMORY");
    db.exec("PRAGMA synchronous = OFF");
    return this.process.wrap(db);
  }
}

export class SimulatedProcess {
  dead = false;
  running: Running;
  link: Link | undefined;
  started = false;
  /** until this many more statements and waits */
  fuse: number | undefined;
  /** work of the present turn, and how far the clock jumped, ms */
  private work = 0;
  private turn = -1;
  private statements = 0;
  private jumped = 0;
  private readonly connections: Database[] = [];
  private lock: PlaceLock | undefined;
  private readonly watchers = new Set<SimulatedWatcher>();

  constructor(readonly options: ProcessOptions) {
    const { node } = options;
    const runtime: Runtime = {
      clock: { now: () => this.now(), sleep: (ms, signal) => this.sleep(ms, signal) },
      random: { bytes: (length) => Uint8Array.from({ length }, () => node.world.random.below(256)) },
      log: this.log(),
      watch: () => this.watch(),
    };
    const place = { dbPath: node.path, folder: `${node.path}-marmot`, created: false };
    const given = { dbPath: node.path, shards: node.world.shards, runtime, connect: () => this.connect() };
    this.lock = lockPlace(place)!;
    this.running = new Running(given, place, { release: () => this.unlock() }, this);
    void this.live();
  }

  private async live(): Promise<void> {
    try {
      await this.running.start();
      if (this.dead) return;
      this.started = true;
      this.end(await this.running.failed);
      this.kill();
    } catch (error) {
      if (this.dead) return;
      this.end(error);
      await this.running.stop().catch((cause) => this.options.node.world.violated(cause));
      this.kill();
    }
  }

  private end(error: unknown): void {
    if (this.dead) return;
    const { node } = this.options;
    const conflict = error instanceof MarmotError && error.exitCode === EXIT.conflict;
    if (conflict && node.isTwin) node.world.counters.add("copies that stopped by name");
    else node.world.violated(new Violation(`a process ended: ${detail(error)}`));
  }

  /** As kill -9: its connections are gone, what it waits for never comes, and what it sent may still arrive. */
  kill(): void {
    if (this.dead) return;
    this.dead = true;
    for (const db of this.connections) close(db);
    this.unlock();
  }

  private unlock(): void {
    this.lock?.release();
    this.lock = undefined;
  }

  async stop(): Promise<void> {
    try {
      await this.running.stop();
      this.dead = true;
    } catch (error) {
      // killed while it stopped
      if (!this.dead) throw error;
    }
  }

  /** A place where it may be killed. */
  point(): void {
    if (this.dead) throw new Killed("killed");
    if (this.fuse !== undefined && --this.fuse <= 0) {
      this.options.node.world.counters.add("kills");
      this.kill();
      throw new Killed("killed");
    }
  }

  /** Somebody committed. Events of Marmot's own commits cost turns and tell nothing: most are left out. */
  fileChanged(own: boolean): void {
    if (own && this.options.node.world.random.below(24) > 0) return;
    for (const watcher of this.watchers) watcher.notice();
  }

  jump(ms: number): void {
    this.jumped += ms;
  }

  wrap(db: Database): Database {
    const { node, speed } = this.options;
    const wrapped = surrounded(db, {
      before: (sql, executes) => {
        this.point();
        this.spend(speed.statement);
        node.world.counters.add("statements");
        node.beforeStatement(sql, executes);
      },
      committed: () => node.marmotCommitted(),
      holder: () => node.application.held,
      random: (sql) => node.marmotStamp(sql),
    });
    this.connections.push(wrapped);
    return wrapped;
  }

  private spend(ms: number): void {
    const { time } = this.options.node.world;
    if (this.turn !== time.events) [this.turn, this.work, this.statements] = [time.events, 0, 0];
    this.work += ms;
    if (++this.statements > TURN_STATEMENTS) throw new Violation("one turn does not end");
  }

  private now(): number {
    this.spend(0);
    return this.options.node.world.time.now + this.work + this.jumped;
  }

  private sleep(ms: number, signal: AbortSignal): Promise<void> {
    if (this.dead) return never();
    if (signal.aborted) return Promise.reject(signal.reason);
    const { time, random } = this.options.node.world;
    this.spend(0);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const abort = () => {
      timer.cancel();
      if (!this.dead) reject(signal.reason);
    };
    const late = ms <= 0 ? TURN_MS : ms + random.next() * LATE_TIMER_MS;
    const timer = time.after(this.work + late, () => {
      signal.removeEventListener("abort", abort);
      if (!this.dead) resolve();
    });
    signal.addEventListener("abort", abort, { once: true });
    return promise;
  }

  private watch(): Watcher {
    const watcher = new SimulatedWatcher(this, () => this.watchers.delete(watcher));
    this.watchers.add(watcher);
    return watcher;
  }

  private async connect(): Promise<Broker> {
    const { node, weather, maxPayload } = this.options;
    const { world } = node;
    const asked = new AbortController();
    await this.sleep(weather.latency, asked.signal);
    if (!node.reachesBroker) {
      await this.sleep(UNREACHABLE_MS, asked.signal);
      throw new BrokerUnreachableError("Cannot reach the broker.");
    }
    return this.link = new Link({
      broker: world.broker,
      time: world.time,
      random: world.random,
      weather,
      held: node.held,
      counters: world.counters,
      maxPayload,
      crashPoint: () => this.point(),
      isDead: () => this.dead,
    });
  }

  private log(): Log {
    const { node } = this.options;
    const say = (level: string) => (message: string, fields: LogFields = {}) => {
      if (!this.dead) node.said(level, message, fields);
    };
    return { debug: say("debug"), info: say("info"), warn: say("warn"), error: say("error") };
  }
}

class SimulatedWatcher implements Watcher {
  private seen = false;
  private waiting: ((event: boolean) => void) | undefined;

  constructor(private readonly process: SimulatedProcess, private readonly forget: () => void) {}

  /** Most events come soon, some late, some never. */
  notice(): void {
    const { time, random } = this.process.options.node.world;
    const x = random.below(20);
    if (x === 0) return;
    time.after(x === 1 ? 40 : random.next(), () => {
      this.seen = true;
      this.waiting?.(true);
    });
  }

  wait(timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    if (this.process.dead) return never();
    if (signal.aborted) return Promise.reject(signal.reason);
    if (this.seen) {
      this.seen = false;
      return Promise.resolve(true);
    }
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    const done = (event: boolean) => {
      timer.cancel();
      signal.removeEventListener("abort", abort);
      this.waiting = undefined;
      this.seen = false;
      if (!this.process.dead) resolve(event);
    };
    const abort = () => {
      timer.cancel();
      this.waiting = undefined;
      if (!this.process.dead) reject(signal.reason);
    };
    const timer = this.process.options.node.world.time.after(timeoutMs, () => done(false));
    this.waiting = done;
    signal.addEventListener("abort", abort, { once: true });
    return promise;
  }

  close(): void {
    this.forget();
  }
}

function close(db: Database): void {
  try {
    db.close();
  } catch {
    // it was closed when its file was replaced
  }
}

function detail(error: unknown): string {
  return error instanceof Error
    ? `${error.message} ${error.cause instanceof Error ? error.cause.stack : error.stack}`
    : String(error);
}
