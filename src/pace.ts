/** How capture and apply share the machine, and the write lock, with the application, which comes first (I6). */
import type { Delivery } from "./acceptance.ts";
import type { Queues } from "./queues.ts";

export interface Pace {
  /** a transaction takes whole batches until it has run this long, ms */
  readonly ms: number;
  /** changes that are prepared for it before the lock is taken */
  readonly changes: number;
  /** how often the lock is tried without a pause: see `transaction` */
  readonly tries: number;
  /** the next transaction begins at least so long after this one began, ms, */
  readonly apartMs: number;
  /** and after this one ended so many times as long as it took: all takes longer when the machine is crowded */
  readonly rests: number;
}

/** Nobody else writes. */
export const FULL_PACE: Pace = { ms: 10, changes: 5_000, tries: 1, apartMs: 0, rests: 0 };

/**
 * The application writes. A commit of its own that has to wait tries again after 1, 3, 8 and 18 ms (SQLite's busy handler),
 * and one that upgrades a read transaction fails: the lock is free nine times out of ten. That is enough for some 30,000
 * rows a second; what more comes waits in the stream. Between transactions of a writer that never rests the lock is free
 * for some microseconds; 100 tries take about 2 ms.
 */
const GENTLE_PACE: Pace = { ms: 1, changes: 250, tries: 100, apartMs: 5, rests: 8 };

/** A pause is no longer than this, ms: where pending entries make each transaction long, a node would never catch up. */
const REST_LIMIT_MS = 100;

/** @returns when the next transaction may begin, after one from `start` to `end` */
export function nextTransaction(pace: Pace, start: number, end: number): number {
  return Math.max(start + pace.apartMs, end + Math.min(REST_LIMIT_MS, pace.rests * (end - start)));
}

export function paceFor(isWriting: boolean): Pace {
  return isWriting ? GENTLE_PACE : FULL_PACE;
}

/** A pace is stretched to this length at most, ms */
const STRETCH_LIMIT_MS = 1_000;

/**
 * Laying pending entries over what was touched takes a time that does not grow with the changes of a transaction: when it
 * is long, the rest of the transaction is as long, or catching up would take ever longer.
 * @param rebaseMs how long it took last time, ms
 */
export function stretched(pace: Pace, rebaseMs: number): Pace {
  const times = Math.max(1, Math.min(STRETCH_LIMIT_MS, rebaseMs) / pace.ms);
  return { ...pace, ms: pace.ms * times, changes: pace.changes * times };
}

/**
 * What only acknowledges own entries waits for more of it, so long, ms, and up to so many messages, and bytes of them: each
 * transaction takes the lock from the application, and refuses those of its read transactions that want to write next.
 */
const ACKNOWLEDGE_MS = 50;
const ACKNOWLEDGE_MESSAGES = 64;
const ACKNOWLEDGE_BYTES = 128 * 1024;

/** When to take a transaction that changes no rows. */
export class AcknowledgingPace {
  private since: number | undefined;

  /**
   * @param onlyAcknowledges does a message that waits need no more than that?
   * @returns how long the messages that wait can go on doing so, ms; 0 when they are to be taken now
   */
  wait(now: number, queues: Queues, onlyAcknowledges: (shard: number, delivery: Delivery) => boolean): number {
    this.since ??= now;
    const left = this.since + ACKNOWLEDGE_MS - now;
    return left > 0 && this.isLittle(queues, onlyAcknowledges) ? left : 0;
  }

  /** A transaction was committed. */
  applied(): void {
    this.since = undefined;
  }

  private isLittle(queues: Queues, onlyAcknowledges: (shard: number, delivery: Delivery) => boolean): boolean {
    let [messages, bytes] = [0, 0];
    for (const [shard, deliveries] of queues) {
      for (const delivery of deliveries) {
        bytes += delivery.data.length;
        if (++messages > ACKNOWLEDGE_MESSAGES || bytes > ACKNOWLEDGE_BYTES) return false;
        if (!onlyAcknowledges(shard, delivery)) return false;
      }
    }
    return true;
  }
}

/** Read snapshots may be ahead of the pauses between them by so much, ms */
const AHEAD_MS = 5;

/**
 * Pauses between read snapshots are as long as these, if not each then some together: a reader that is always there keeps
 * the WAL from being checkpointed. What is done in between, such as encoding and sending, is a pause.
 */
export class ReadingPace {
  private ahead = 0;
  private end = 0;
  /** no entries are to be read before this time, ms */
  after = 0;

  /** @param now tells the time, ms */
  constructor(private readonly now: () => number) {}

  read<T>(snapshot: () => T): T {
    const start = this.now();
    this.ahead = Math.max(0, this.ahead - (start - this.end));
    try {
      return snapshot();
    } finally {
      this.end = this.now();
      this.ahead += this.end - start;
      if (this.ahead > AHEAD_MS) this.after = this.end + this.ahead;
    }
  }
}
