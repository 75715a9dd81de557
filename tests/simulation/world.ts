/** A simulated cluster, and what is checked after every event. */
import { createHash } from "node:crypto";
import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { decodeFrame, decodeMessage } from "../../src/change_codec.ts";
import { hex } from "../../src/hex.ts";
import type { Random } from "../support/random.ts";
import { check } from "./checks.ts";
import { ClusterBroker } from "./cluster_broker.ts";
import { Counters } from "./counters.ts";
import { Entries } from "./entries.ts";
import { StreamLaw } from "./law.ts";
import { literal } from "./literals.ts";
import { SimulatedNode } from "./node.ts";
import { makeFile } from "./file.ts";
import type { Setting } from "./setting.ts";
import { VirtualTime } from "./virtual_time.ts";

/** The bytes of a message; what zstd made of them is not the same everywhere, so then what it made it of. */
function contentOf(data: Uint8Array): string {
  const { frame, ...header } = decodeMessage(data);
  const compressed = header.part === 1 && !header.continues && frame[0] === ZSTD;
  const text = (_: string, value: unknown) => typeof value === "bigint" ? `${value}` : value;
  return `${JSON.stringify(header)} ${compressed ? JSON.stringify(decodeFrame(frame), text) : hex(frame)}`;
}

/** A message as a trace shows it; of a batch of several parts, the first. */
function summaryOf(data: Uint8Array): string {
  const { origin, epoch, number, base, part, last, continues, frame } = decodeMessage(data);
  const header = `of ${origin.slice(0, 4)}, ${epoch}.${number} from ${base} on${last ? "" : ", and more"}`;
  if (frame.length === 0 || part > 1 || continues) return header;
  const tables = decodeFrame(frame).map(({ table, columns, changes }) => {
    const rows = changes.map(({ op, seq, values }) => `${seq}: ${op} ${values.map(literal)}`);
    return `${table}(${columns}) ${rows.join("; ")}`;
  });
  return `${header}: ${tables.join(" | ")}`;
}

/** The kind of a frame: see src/frame_codec.ts */
const ZSTD = 2;

export type Trace = (line: string) => void;

export class World {
  readonly time = new VirtualTime();
  readonly counters = new Counters();
  readonly entries = new Entries();
  readonly law: StreamLaw;
  readonly broker: ClusterBroker;
  readonly nodes: SimulatedNode[] = [];
  readonly twins: SimulatedNode[] = [];
  /** all nodes have started */
  begun = false;
  /** what a clone was just made of: the worst moment to lose its file */
  cloned: SimulatedNode | undefined;
  /** all faults are over, and nobody writes */
  ending = false;
  closed = false;
  private violation: unknown;
  private count = 0;
  private transactions = 0;
  private readonly hash = createHash("sha256");

  constructor(
    readonly random: Random,
    readonly setting: Setting,
    private readonly folder: string,
    private readonly tracing: Trace | undefined,
  ) {
    this.law = new StreamLaw(this.entries, setting.later.length === 0);
    this.broker = new ClusterBroker(setting.shards);
    for (const stream of this.broker.streams) {
      stream.listen(() => {
        this.note(`${this.time.now} ${stream.name} ${contentOf(stream.tip!.data)}`);
        this.trace(stream.name, () => `${stream.tip!.sequence} ${summaryOf(stream.tip!.data)}`);
      });
    }
    const first = this.path("first.db");
    makeFile(first, setting);
    for (let i = 0; i < setting.nodes; i++) {
      const path = this.path(`n${i + 1}.db`);
      copyFileSync(first, path);
      this.makeNode(path).start();
    }
  }

  get shards(): number {
    return this.setting.shards;
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** A clone joins. */
  addNode(path: string, ahead: ReadonlySet<string>, changes: number): SimulatedNode {
    const node = this.makeNode(path);
    node.ahead = ahead;
    node.changes = changes;
    node.start();
    return node;
  }

  private makeNode(path: string): SimulatedNode {
    const node = new SimulatedNode(this, `n${this.nodes.length + 1}`, path);
    this.nodes.push(node);
    return node;
  }

  /** Somebody copies a node's file, and starts a Marmot on the copy. */
  addTwin(path: string, changes: number): void {
    const twin = new SimulatedNode(this, "twin", path);
    twin.changes = changes;
    twin.isTwin = true;
    this.twins.push(twin);
    twin.start();
  }

  next(): number {
    return ++this.count;
  }

  stamp(): bigint {
    const half = () => BigInt(Math.floor(this.random.next() * 2 ** 32));
    return BigInt.asIntN(64, (half() << 32n) | half());
  }

  violated(error: unknown): void {
    this.violation ??= error;
  }

  /** Each line goes into the digest, too. */
  trace(who: string, line: () => string): void {
    this.tracing?.(`${this.time.now.toFixed(3).padStart(12)}  ${who.padEnd(4)} ${line()}`);
  }

  note(line: string): void {
    this.hash.update(`${line}\n`);
  }

  get digest(): string {
    return this.hash.digest("hex");
  }

  /** Takes down what the application has just committed. */
  record(node: SimulatedNode): void {
    const transaction = ++this.transactions;
    if (!node.isInstalled) return;
    for (const pending of node.file.allPending()) {
      if (this.entries.has(pending.stamp)) continue;
      this.entries.record({ ...pending, transaction });
      node.must.add(pending.stamp);
      this.counters.add("entries");
    }
  }

  /** Events until `limit` of virtual time; after each, what it changed is checked. */
  async run(limit: number): Promise<void> {
    while (await this.time.step(limit)) this.afterEvent();
  }

  afterEvent(): void {
    if (this.violation !== undefined) throw this.violation;
    for (const node of this.nodes) {
      if (!node.changed) continue;
      node.changed = false;
      check(this, node);
    }
    if (this.violation !== undefined) throw this.violation;
  }

  close(): void {
    this.closed = true;
    for (const node of [...this.nodes, ...this.twins]) node.close();
  }
}
