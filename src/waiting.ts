/** Waits that a signal can end. */

/** The promise's outcome, or a rejection with the signal's reason. */
export function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  return Promise.race([promise, aborted]).finally(() => signal.removeEventListener("abort", abort));
}

/** Wakes a loop that sleeps. */
export class Alarm {
  private bell = Promise.withResolvers<void>();

  ring(): void {
    this.bell.resolve();
    this.bell = Promise.withResolvers();
  }

  /** What rings from now on; taken before a round of work, so that nothing that rings during it is missed. */
  next(): Promise<void> {
    return this.bell.promise;
  }
}

/** Given as the reason, since abort() alone makes an exception with a stack each time. */
const WOKEN = new Error("woken");

/** Sleeps until `sleep` is over, or `woken` resolves; then stops sleeping. */
export async function sleepUnless(woken: Promise<void>, sleep: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const stop = new AbortController();
  try {
    await Promise.race([woken, sleep(stop.signal)]);
  } finally {
    stop.abort(WOKEN);
  }
}

/** A signal that is aborted when `sleep` is over; `stop` ends the sleep. */
export function deadline(sleep: (stop: AbortSignal) => Promise<void>): { signal: AbortSignal; stop(): void } {
  const over = new AbortController();
  const ended = new AbortController();
  sleep(ended.signal).then(() => over.abort(new Error("it took too long")), () => {});
  return { signal: over.signal, stop: () => ended.abort() };
}
