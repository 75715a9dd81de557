/** Hurts what it is given for a while, several things at once, and lets all come back. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Random } from "../support/random.ts";
import type { Brokers } from "./brokers.ts";
import { drawFault, type Fault } from "./faults.ts";
import type { TortureNode } from "./node.ts";

const AT_ONCE = 4;
const NEXT_MS = 1_300;
/** faults, and then none for a while, in which a node that was put back can catch up */
const ROUND_FAULTS = 12;
const CALM_MS = 5_000;

export interface NemesisOptions {
  readonly nodes: readonly TortureNode[];
  readonly brokers: Brokers;
  readonly random: Random;
  readonly say: (line: string) => void;
}

export class Nemesis {
  /** how often each kind was done */
  readonly counts: Record<string, number> = {};
  readonly #active = new Map<Promise<void>, Fault>();
  #failure: unknown;
  #ended = new AbortController();

  constructor(private readonly options: NemesisOptions) {}

  /** Until the signal. Resolves when every fault is over; rejects when one could not be done. */
  async run(signal: AbortSignal): Promise<void> {
    const end = () => this.#ended.abort();
    signal.addEventListener("abort", end, { once: true });
    const { nodes, brokers, random } = this.options;
    const pause = (ms: number) => this.#pause(ms);
    while (!this.#ended.signal.aborted) {
      for (let drawn = 0; drawn < ROUND_FAULTS && !this.#ended.signal.aborted; drawn++) {
        const fault = drawFault({ nodes, brokers, pause }, random);
        const ms = random.below(NEXT_MS);
        if (this.#isFree(fault)) this.#begin(fault);
        await this.#pause(ms);
      }
      await this.#over();
      await this.#pause(CALM_MS);
    }
    await this.#over();
    signal.removeEventListener("abort", end);
    if (this.#failure !== undefined) throw this.#failure;
  }

  #isFree({ needs }: Fault): boolean {
    const taken = [...this.#active.values()].flatMap((fault) => fault.needs);
    return this.#active.size < AT_ONCE && !needs.some((need) => taken.includes(need));
  }

  #begin(fault: Fault): void {
    const { kind, needs } = fault;
    this.counts[kind] = (this.counts[kind] ?? 0) + 1;
    this.options.say(`${kind}: ${needs.join(", ")}`);
    const done: Promise<void> = fault.run().catch((error) => {
      this.#failure ??= new Error(`Cannot do "${kind}" to ${needs.join(", ")}`, { cause: error });
      this.#ended.abort();
    }).finally(() => {
      this.#active.delete(done);
      this.options.say(`over: ${kind}: ${needs.join(", ")}`);
    });
    this.#active.set(done, fault);
  }

  async #over(): Promise<void> {
    while (this.#active.size > 0) await Promise.all(this.#active.keys());
  }

  #pause(ms: number): Promise<void> {
    return sleep(ms, undefined, { signal: this.#ended.signal }).catch(() => {/* all has to come back now */});
  }
}
