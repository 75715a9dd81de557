/** Time that passes only from one event to the next, so that nothing waits and one seed gives one order of events. */

/** A history has some thousands. */
const MOST_EVENTS = 500_000;

interface Event {
  readonly time: number;
  readonly order: number;
  action: (() => void) | undefined;
}

export interface Timer {
  cancel(): void;
}

export class VirtualTime {
  /** ms */
  now = 0;
  events = 0;
  private readonly heap: Event[] = [];
  private count = 0;

  after(delay: number, action: () => void): Timer {
    const event: Event = { time: this.now + Math.max(0, delay), order: this.count++, action };
    this.push(event);
    return { cancel: () => event.action = undefined };
  }

  /** Runs the next event that is due by `limit`, and all it sets off at once. @returns false, with the limit as time, if there is none */
  async step(limit: number): Promise<boolean> {
    for (;;) {
      const event = this.heap[0];
      if (event === undefined || event.time > limit) {
        this.now = Math.max(this.now, limit);
        return false;
      }
      this.pop();
      if (event.action === undefined) continue;
      this.now = event.time;
      if (++this.events > MOST_EVENTS) throw new Error("too much happens");
      event.action();
      await settled();
      return true;
    }
  }

  private push(event: Event): void {
    const { heap } = this;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!before(event, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = event;
  }

  private pop(): void {
    const { heap } = this;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
      if (!before(heap[child]!, last)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
  }
}

function before(a: Event, b: Event): boolean {
  return a.time < b.time || (a.time === b.time && a.order < b.order);
}

/** A turn of the real event loop comes only when no promise has anything left to do. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** What a process that was killed waits for. */
export function never<T>(): Promise<T> {
  return new Promise<T>(() => {});
}
