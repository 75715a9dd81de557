/**
 * Shards that have much to catch up on take turns on a connection. For each of them the server would send tens of megabytes
 * ahead: with many at once a small machine runs out of memory, and the server closes a connection for which it holds
 * 64 MiB (its default).
 */

/** What is behind by less than this needs no turn, nor is it given up, bytes */
const SMALL_BYTES = 512 * 1024;
/** Received by all shards together whose turn it is not, and not taken yet: more is given up, and read again, bytes */
const HELD_BYTES = 32 * 1024 * 1024;
/** A turn is over after this when others wait, bytes */
const TURN_BYTES = 64 * 1024 * 1024;

/** Ends a turn; does nothing the second time. */
export type EndTurn = () => void;

export class Turns {
  /** received by shards whose turn it is not, and not taken yet, bytes */
  held = 0;
  #taken = false;
  readonly #waiting: (() => void)[] = [];

  /** Resolves when it is the caller's turn. */
  async take(): Promise<EndTurn> {
    if (this.#taken) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#taken = true;
    let ended = false;
    return () => {
      if (ended) return;
      ended = true;
      const next = this.#waiting.shift();
      if (next === undefined) this.#taken = false;
      else next();
    };
  }

  /** Is a shard that is so many bytes behind to wait for a turn? */
  isDue(behind: number): boolean {
    return behind > SMALL_BYTES;
  }

  /** Should one that received so many bytes in its turn let others have theirs? */
  isOver(received: number): boolean {
    return received > TURN_BYTES && this.#waiting.length > 0;
  }

  /** Must one whose turn it is not, and that holds so many bytes, be given up? */
  isTooMuch(own: number): boolean {
    return this.held > HELD_BYTES && own > SMALL_BYTES;
  }
}
