/** What the core asks of its surroundings, so that a test or the simulation can hold it still. */
import type { Watcher } from "./watcher.ts";

export interface Clock {
  /** ms, monotonic */
  now(): number;
  /** resolves after `ms`; rejects with the signal's reason when aborted */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}

export interface Random {
  /** random bytes */
  bytes(length: number): Uint8Array;
}

export type LogFields = Record<string, string | number | boolean | bigint | undefined>;

/** Structured log: a constant sentence, and its data as fields. Never given a secret. */
export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

/** All of it together. */
export interface Runtime {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** writes to a database file, and to what belongs to it */
  watch(dbPath: string): Watcher;
}
