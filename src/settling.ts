/** Who waits until what an application wrote was read back from the stream. */
import { untilAborted } from "./waiting.ts";

interface Waiter {
  /** table → highest seq that must be acknowledged */
  readonly left: Map<string, number>;
  /** @param isBack false: names of logs, or numbers of entries, are others now */
  readonly done: (isBack: boolean) => void;
}

export class Settling {
  private readonly waiters = new Set<Waiter>();
  private scan = Promise.withResolvers<void>();

  /** Resolves with the next scan: it sees everything that was committed before this call. */
  nextScan(): Promise<void> {
    return this.scan.promise;
  }

  scanned(): void {
    this.scan.resolve();
    this.scan = Promise.withResolvers();
  }

  /**
   * Resolves when entries up to these seqs (0: none) have been acknowledged; with false when that can't be told any more,
   * and the caller must look again what there is.
   */
  async readBack(highest: readonly (readonly [table: string, seq: number])[], signal: AbortSignal): Promise<boolean> {
    const left = new Map(highest.filter(([, seq]) => seq > 0));
    if (left.size === 0) return true;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const waiter = { left, done: resolve };
    this.waiters.add(waiter);
    try {
      return await untilAborted(promise, signal);
    } finally {
      this.waiters.delete(waiter);
    }
  }

  /** Logs have other names, or are gone. */
  startAnew(): void {
    for (const { done } of this.waiters) done(false);
  }

  /** Entries of a table were deleted; numbers above the highest one left are used again, by entries nobody waits for. */
  acknowledged(table: string, highest: number, lowest: number): void {
    for (const { left, done } of this.waiters) {
      const seq = Math.min(left.get(table) ?? 0, highest);
      if (seq === 0 || lowest > seq) left.delete(table);
      else left.set(table, seq);
      if (left.size === 0) done(true);
    }
  }
}
