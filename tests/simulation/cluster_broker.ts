/** The broker of a simulated cluster: its streams, what was agreed, and who holds a lease. It knows nothing of networks. */
import { createHash } from "node:crypto";
import type { Agreement } from "../../src/broker.ts";
import type { MessageIdentity, StreamMessage, StreamState } from "../../src/change_stream.ts";
import { StreamGapError } from "../../src/errors.ts";

/** A message, and what was in front of it when it was stored: a stream that lost its tail has another history. */
export interface Stored extends StreamMessage {
  readonly before: Stored | undefined;
  readonly shard: number;
}

/** What a cursor says of the message it stands at. */
export interface Position {
  readonly sequence: number;
  readonly digest: string;
  readonly time: number;
}

function nameOf({ sequence, digest, time }: Position): string {
  return `${sequence} ${digest} ${time}`;
}

export class ClusterStream {
  readonly messages: Stored[] = [];
  /** all that was ever stored, by what a cursor says of it */
  private readonly known = new Map<string, Stored>();
  private first = 1;
  private last: Stored | undefined;
  private readonly listeners = new Set<() => void>();
  /** a lost message, of which a double is still on its way, and comes in where the message was */
  private double: Stored | undefined;

  constructor(readonly name: string, readonly shard: number) {}

  get end(): number {
    return this.last?.sequence ?? 0;
  }

  get tip(): Stored | undefined {
    return this.last;
  }

  /** @returns its sequence */
  append(data: Uint8Array, time: number): number {
    const stored = { sequence: this.end + 1, time: Math.trunc(time), data, before: this.last, shard: this.shard };
    this.last = stored;
    this.messages.push(stored);
    this.known.set(nameOf({ ...stored, digest: digestOf(data) }), stored);
    for (const listener of [...this.listeners]) listener();
    if (this.double?.sequence === this.end + 1) this.append(this.double.data, time);
    return stored.sequence;
  }

  state(): StreamState {
    return { firstSequence: this.first, lastSequence: this.end, bytes: this.end, maxBytes: -1 };
  }

  identity(sequence: number): MessageIdentity | undefined {
    const found = this.messages.find((message) => message.sequence === sequence);
    return found === undefined ? undefined : { digest: digestOf(found.data), time: found.time };
  }

  /** Messages from `sequence` on. @throws StreamGapError when the first of them is gone */
  from(sequence: number): Stored[] {
    if (sequence < this.first || sequence > this.end + 1) {
      throw new StreamGapError(this.name, sequence, this.first, this.end);
    }
    return this.messages.slice(sequence - this.first);
  }

  at(position: Position): Stored | undefined {
    return this.known.get(nameOf(position));
  }

  /** Retention, or somebody, drops the oldest. */
  purge(count: number): void {
    this.first += this.messages.splice(0, count).length;
  }

  /**
   * What was acknowledged is gone all the same.
   * @param doubled comes the last of it again, once as many others are there as were in front of it?
   */
  loseTail(count: number, doubled: boolean): void {
    const gone = this.messages.splice(Math.max(0, this.messages.length - count));
    if (gone.length === 0) return;
    this.last = gone[0]!.before;
    this.double = doubled ? gone.at(-1) : undefined;
  }

  listen(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}

export function digestOf(data: Uint8Array): string {
  return createHash("sha256").update(data).digest("hex").slice(0, 32);
}

export class ClusterBroker {
  readonly streams: readonly ClusterStream[];
  readonly placements = new Map<string, Agreement>();
  /**
   * The place that holds each node's id, for good: a copy of a file that is started while its original is away for longer
   * than a lease lasts has become that node, which is not tried here.
   */
  readonly leases = new Map<string, string>();
  up = true;

  constructor(shards: number) {
    this.streams = Array.from({ length: shards }, (_, shard) => new ClusterStream(`changes-${shard + 1}`, shard));
  }

  agreePlacement(table: string, proposal: Agreement): Agreement {
    const known = this.placements.get(table);
    if (known === undefined) this.placements.set(table, proposal);
    return known ?? proposal;
  }
}
