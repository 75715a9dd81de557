/**
 * Several shards read the same entries, and each takes its own. Those that read the same range share what SQLite gave, or
 * a row would be read and hashed once for each shard.
 */
import { bytesOf, type Change } from "./change.ts";

/** Longer ranges, and what is more than so many bytes together, are read by each shard for itself. */
const RANGE_ENTRIES = 20_000;
const HELD_BYTES = 8 * 1024 * 1024;
/** What an entry takes besides its values, about */
const ENTRY_BYTES = 200;
/** Shards whose answers come later read one range behind the others. */
const TABLE_RANGES = 2;

interface Range {
  readonly after: number;
  readonly to: number;
  /** by shard; undefined when it is too much to hold */
  readonly changes: ReadonlyMap<number, readonly Change[]> | undefined;
  readonly bytes: number;
}

const NONE: readonly Change[] = [];
const TOO_MUCH = { changes: undefined, bytes: 0 } as const;

export class SharedRanges {
  /** by table, the newest last */
  private readonly ranges = new Map<string, Range[]>();
  private bytes = 0;

  /** A shard reads again what it has read, or entries have changed. */
  clear(): void {
    this.ranges.clear();
    this.bytes = 0;
  }

  /**
   * Entries of a table's log were deleted: numbers above the highest one left will be used again. What is held below it may
   * be deleted too, but only by shards that have read theirs, since a shard publishes what it reads and reads in order.
   */
  acknowledged(table: string, highest: number): void {
    this.keep(table, (this.ranges.get(table) ?? []).filter(({ to }) => to <= highest));
  }

  /**
   * Changes of a shard in a range of a table's log.
   * @param read reads the range
   * @param shardOf a change
   * @returns undefined when this shard must read the range for itself
   */
  of(
    shard: number,
    table: string,
    after: number,
    to: number,
    read: () => Iterable<Change>,
    shardOf: (change: Change) => number,
  ): readonly Change[] | undefined {
    const ranges = this.ranges.get(table) ?? [];
    let range = ranges.find((one) => one.after <= after && one.to === to);
    if (range === undefined) {
      this.keep(table, ranges.slice(1 - TABLE_RANGES));
      range = { after, to, ...to - after > RANGE_ENTRIES ? TOO_MUCH : this.divide(read(), shardOf) };
      this.keep(table, [...this.ranges.get(table)!, range]);
    }
    const changes = range.changes && (range.changes.get(shard) ?? NONE);
    // a shard whose frame was full goes on inside the range
    return range.after === after ? changes : changes?.filter(({ seq }) => seq > after);
  }

  private keep(table: string, ranges: Range[]): void {
    const bytesOfAll = (some: readonly Range[]) => some.reduce((sum, { bytes }) => sum + bytes, 0);
    this.bytes += bytesOfAll(ranges) - bytesOfAll(this.ranges.get(table) ?? []);
    this.ranges.set(table, ranges);
  }

  private divide(changes: Iterable<Change>, shardOf: (change: Change) => number): Pick<Range, "changes" | "bytes"> {
    const divided = new Map<number, Change[]>();
    let bytes = 0;
    for (const change of changes) {
      bytes += ENTRY_BYTES + bytesOf(change.values);
      if (this.bytes + bytes > HELD_BYTES) return TOO_MUCH;
      const shard = shardOf(change);
      const some = divided.get(shard);
      if (some === undefined) divided.set(shard, [change]);
      else some.push(change);
    }
    return { changes: divided, bytes };
  }
}
