/** A node made of the real classes of the core, one step at a time: no timers, no broker, no process. */
import { Acceptance, type Delivery } from "../../src/acceptance.ts";
import { type Applied, Applier } from "../../src/apply.ts";
import type { Agreement } from "../../src/broker.ts";
import { Capture } from "../../src/capture.ts";
import { decodeMessage } from "../../src/change_codec.ts";
import type { Database } from "../../src/database.ts";
import { Publisher } from "../../src/publish.ts";
import type { Clock, Log } from "../../src/runtime.ts";
import { openDatabase } from "../../src/sqlite/connection.ts";
import { install, type Installed } from "../../src/sqlite/install.ts";
import { fold } from "../../src/sqlite/quote.ts";
import { Targets } from "../../src/sqlite/targets.ts";
import { digestOf } from "../../src/subscribe.ts";
import type { TablePatterns } from "../../src/table_filter.ts";
import type { MemoryStream } from "./memory_stream.ts";

const SILENT: Log = { debug() {}, info() {}, warn() {}, error() {} };

export interface CoreNodeOptions {
  readonly path: string;
  readonly streams: readonly MemoryStream[];
  /** random hex digits */
  readonly hex: (digits: number) => string;
  /** ms */
  readonly now?: () => number;
  readonly patterns?: TablePatterns;
  readonly rowidTables?: boolean;
  readonly backfill?: boolean;
  /** changes what the node's connection does: a test lets the application write in between, or locks fail */
  readonly wrap?: (db: Database) => Database;
}

const STILL: Clock = { now: () => 0, sleep: () => Promise.resolve() };

interface CoreShard {
  readonly publisher: Publisher;
  acceptance: Acceptance;
  received: number;
  readonly queue: Delivery[];
}

/** One process of a node. A crash is `close`, and a new CoreNode on the same file. */
export class CoreNode {
  readonly db: Database;
  readonly nonce: string;
  readonly capture: Capture;
  readonly shards: CoreShard[] = [];
  /** table and reason of what was parked or skipped */
  readonly notices: string[] = [];
  conflict: string | undefined;
  installed!: Installed;
  applier!: Applier;
  targets!: Targets;

  constructor(private readonly options: CoreNodeOptions) {
    const db = openDatabase(options.path);
    db.exec("PRAGMA ignore_check_constraints = ON; PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF");
    this.db = options.wrap?.(db) ?? db;
    this.nonce = options.hex(16);
    this.capture = new Capture(this.db, options.streams.length, STILL);
    this.install();
    for (const [shard, stream] of options.streams.entries()) {
      const publisher = this.makePublisher(stream, shard);
      const acceptance = new Acceptance(this.applier.allSeen(shard));
      this.shards.push({ publisher, acceptance, received: this.applier.cursor(shard).sequence, queue: [] });
    }
  }

  get id(): string {
    return this.installed.nodeId;
  }

  install(): void {
    const { hex, patterns = { include: [], exclude: [] }, rowidTables = false, backfill = false } = this.options;
    this.installed = install(this.db, {
      patterns,
      rowidTables,
      backfill,
      newNodeId: () => hex(32),
      scanned: (table) => this.capture.scanned(fold(table)),
    });
    this.capture.follow(this.installed);
    const targets = new Targets(this.db, this.installed, patterns);
    this.applier ??= this.makeApplier();
    this.applier.useSchema(targets);
    this.targets = targets;
    const placements = new Map(
      [...targets.logs.keys()].map((
        name,
      ): [string, Agreement] => [name, { placement: "rows", home: targets.installed.names.homeOf(name) }]),
    );
    const gone = this.capture.useSchema(targets.logs, placements, this.installed.version);
    if (!gone && this.installed.moved.size === 0) return;
    for (const { publisher } of this.shards) publisher.restart("a table was renamed or dropped");
  }

  /** Scans, and lets the publisher of a shard do what it can: start, or send `parts` pieces. */
  publish(shard: number, parts = Infinity): void {
    while (this.capture.scan().kind === "schema changed") this.install();
    const { publisher } = this.shards[shard]!;
    const cursor = this.applier.cursor(shard).sequence;
    publisher.step(cursor, this.applier.seen(shard, this.id));
    for (let sent = 0; sent < parts && publisher.open; sent++) {
      const part = this.capture.read(shard, cursor);
      if (part === undefined) return;
      publisher.send(part);
    }
  }

  /** Receives up to `count` messages. */
  receive(shard: number, count: number): void {
    const state = this.shards[shard]!;
    for (
      const { sequence, time, data } of this.options.streams[shard]!.messages.slice(state.received).slice(0, count)
    ) {
      const message = decodeMessage(data);
      state.queue.push({ sequence, time, data, message, verdict: state.acceptance.accept(message) });
      state.received = sequence;
    }
  }

  /** Applies what was received, as far as it fits one transaction. */
  apply(shard: number): Applied | undefined {
    const { queue, publisher } = this.shards[shard]!;
    if (queue.length === 0) return undefined;
    const applied = this.applier.apply(new Map([[shard, queue]]));
    if (applied.kind === "schema changed") this.install();
    if (applied.kind === "applied") {
      for (const delivery of queue.splice(0, applied.messages.get(shard))) publisher.observe(delivery);
    }
    return applied;
  }

  /** Lays on what is parked, as far as it can be. */
  layParked(): void {
    this.applier.retryFailing();
    while (this.applier.layParked());
  }

  close(): void {
    this.db.close();
  }

  private makeApplier(): Applier {
    return new Applier({
      db: this.db,
      nodeId: this.id,
      nonce: this.nonce,
      clock: STILL,
      digest: digestOf,
      acknowledged: (table, highest, lowest) => this.capture.acknowledged(table, highest, lowest),
      meanwhile: () => this.capture.scanIfDue(),
      capturedNullKeys: () => this.capture.nullKeys,
      notice: (table, reason) => this.notices.push(`${table}: ${reason}`),
    }, this.options.streams.length);
  }

  private makePublisher(stream: MemoryStream, shard: number): Publisher {
    return new Publisher({
      stream,
      origin: this.id,
      nonce: this.nonce,
      clock: { now: this.options.now ?? (() => 0), sleep: () => Promise.resolve() },
      log: SILENT,
      wake: () => {},
      rewind: () => this.capture.restart(shard),
      conflict: (other) => this.conflict = other,
    });
  }
}

/** Lets promises that are settled run what waits for them. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 8; i++) await Promise.resolve();
}

/** Publishes, delivers and applies until no node has anything to do. */
export async function converge(nodes: readonly CoreNode[], streams: readonly MemoryStream[]): Promise<void> {
  for (let round = 0; round < 200; round++) {
    let quiet = true;
    for (const [shard, stream] of streams.entries()) {
      for (const node of nodes) {
        node.publish(shard);
        await settle();
        node.publish(shard);
        quiet &&= node.shards[shard]!.publisher.kind === "ready";
      }
      quiet &&= stream.network.length === 0;
      stream.flush();
      await settle();
      for (const node of nodes) {
        node.receive(shard, Infinity);
        for (let kind = node.apply(shard)?.kind; kind !== undefined; kind = node.apply(shard)?.kind) {
          if (kind === "replaced") throw new Error("replaced");
        }
        node.layParked();
      }
    }
    if (quiet) return;
  }
  throw new Error("the nodes do not come to rest");
}
