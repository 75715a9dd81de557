/** Tells that the database's directory changed: a hint to look, never a proof that anything was committed. */
export interface Watcher {
  /** resolves at the next event, or after `timeoutMs`; rejects with the signal's reason when aborted */
  wait(timeoutMs: number, signal: AbortSignal): Promise<void>;
  close(): void;
}
