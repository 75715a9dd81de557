/**
 * Several shards read the same entries, and each takes its own. Those that read the same range share what SQLite gave, or
 * a row would be read and hashed once for each shard.
 */
import { bytesOf, type Change } from "./change.ts";

/** Longer ranges, and what is more than so many bytes together, are read by each shard for itself. */
const RANGE_ENTRIES = 4_000;
const HELD_BYTES = 4 * 1024 * 1024;

interface Range {
  readonly after: number;
  readonly to: number;
  /** by shard; undefined when it is too much to hold */
  readonly changes: ReadonlyMap<number, readonly Change[]> | undefined;
}

const NONE: readonly Change[] = [];

export class SharedRanges {
  private readonly ranges = new Map<string, Range>();
  private bytes = 0;

  /** Entries may be gone, and their numbers used again. */
  clear(): void {
    this.ranges.clear();
    this.bytes = 0;
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
    let range = this.ranges.get(table);
    if (range?.after !== after || range.to !== to) {
      const changes = to - after > RANGE_ENTRIES ? undefined : this.divide(read(), shardOf);
      range = { after, to, changes };
      this.ranges.set(table, range);
    }
    return range.changes && (range.changes.get(shard) ?? NONE);
  }

  private divide(
    changes: Iterable<Change>,
    shardOf: (change: Change) => number,
  ): Map<number, readonly Change[]> | undefined {
    const divided = new Map<number, Change[]>();
    for (const change of changes) {
      this.bytes += bytesOf(change.values);
      if (this.bytes > HELD_BYTES) {
        this.clear();
        return undefined;
      }
      const shard = shardOf(change);
      const some = divided.get(shard);
      if (some === undefined) divided.set(shard, [change]);
      else some.push(change);
    }
    return divided;
  }
}
