/** Tells that the database was written to: a hint to look, never a proof that anything was committed. */
export interface Watcher {
  /** resolves with true at the next event, with false after `timeoutMs`; rejects with the signal's reason when aborted */
  wait(timeoutMs: number, signal: AbortSignal): Promise<boolean>;
  close(): void;
}
