/** What one transaction of apply has done so far, for one shard or several; thrown away when it rolls back. */
import type { Delivery, Seen } from "../acceptance.ts";
import type { Clock } from "../runtime.ts";
import type { ChangeLog } from "./change_log.ts";
import type { Cursor } from "./cursors.ts";
import { Laying } from "./laying.ts";
import type { Targets } from "./targets.ts";

/**
 * Own entries that are deleted at once: it takes 0.4 µs for one, to some 20 where they are large. Those of one message are
 * neighbours; with several shards it takes the messages of all of them before they are.
 */
const DELETED_AT_ONCE = 500;
const DELETED_AT_ONCE_SHARDED = 2_000;

/** How far a shard came in it. */
export class Progress {
  messages = 0;
  last: Delivery | undefined;
  cursor: Cursor | undefined;
  /** accepted last, by origin */
  readonly seen = new Map<string, Seen>();

  /** @param writtenAt stream sequence at which rows were last written */
  constructor(public writtenAt: number) {}
}

export class Work {
  readonly laying = new Laying();
  /** by shard */
  readonly shards = new Map<number, Progress>();
  /** tables whose entries were deleted; with the seqs left, read before the commit: after it, numbers are used again */
  readonly acknowledged = new Map<string, { highest: number; lowest: number }>();
  rebaseMs = 0;
  /** entries that are deleted before pending ones are looked at: neighbours that came back to several shards at once */
  private readonly deletions = new Map<ChangeLog, number[]>();
  private deleting = 0;
  private readonly deleteAtOnce: number;

  /** @param shards of the node */
  constructor(private readonly clock: Clock, shards: number) {
    this.deleteAtOnce = shards > 1 ? DELETED_AT_ONCE_SHARDED : DELETED_AT_ONCE;
  }

  passed(shard: number, progress: Progress, delivery: Delivery): void {
    progress.messages++;
    progress.last = delivery;
    this.shards.set(shard, progress);
  }

  delete(log: ChangeLog, seqs: readonly number[]): void {
    const before = this.deletions.get(log);
    if (before === undefined) this.deletions.set(log, [...seqs]);
    else for (const seq of seqs) before.push(seq);
    this.deleting += seqs.length;
    if (this.deleting >= this.deleteAtOnce) this.flush();
  }

  /** Lays what is pending over what was touched. */
  rebase(): void {
    this.flush();
    const start = this.clock.now();
    this.laying.rebase();
    this.rebaseMs += this.clock.now() - start;
  }

  private flush(): void {
    for (const [log, seqs] of this.deletions) log.deleteSeqs(seqs);
    this.deletions.clear();
    this.deleting = 0;
  }

  /** What the change logs still hold, before the commit. */
  readLeft({ logs, installed }: Targets): void {
    this.flush();
    for (const name of this.acknowledged.keys()) {
      const log = logs.get(name)!;
      const left = log.ends();
      this.acknowledged.set(name, left);
      if (log.isFilled(left.highest + 1)) installed.names.lowerFilled(name, left.highest);
    }
  }
}
