/** One process for each node id: a key that expires unless its holder renews it. */
import type { Lease } from "../broker.ts";
import { EXIT, MarmotError } from "../errors.ts";
import type { Log } from "../runtime.ts";
import type { KeyStore, Stored } from "./key_store.ts";

export interface LeaseTimes {
  /** whole seconds: the server's unit */
  readonly ttlMs: number;
  readonly renewMs: number;
  /** how often a lease of another place is looked at while waiting for its end */
  readonly pollMs: number;
}

export const LEASE_TIMES: LeaseTimes = { ttlMs: 10_000, renewMs: 3_000, pollMs: 500 };
/** beyond its TTL, how long a lease may take to vanish: the server sweeps about once a second */
const EXPIRY_SLACK_MS = 5_000;

export interface Claim {
  readonly nodeId: string;
  readonly nonce: string;
  readonly holder: string;
}

/** What the key holds. */
interface Held {
  readonly nonce: string;
  readonly holder: string;
}

/** See Registry.lease. */
export async function acquireLease(
  store: KeyStore,
  key: string,
  claim: Claim,
  times: LeaseTimes,
  log: Log,
): Promise<Lease> {
  const deadline = performance.now() + times.ttlMs + EXPIRY_SLACK_MS;
  let first: Stored | undefined;
  for (;;) {
    const stored = await store.get(key);
    const held = heldOf(stored);
    if (held === undefined || held.nonce === claim.nonce || held.holder === claim.holder) {
      const revision = await store.set(key, textOf(claim), stored.revision, times.ttlMs);
      if (revision !== undefined) return new RenewedLease(store, key, claim, times, log, revision);
      continue;
    }
    if (first === undefined) log.info("Waiting for the lease of another place to end", { holder: held.holder });
    first ??= stored;
    if (stored.revision !== first.revision || performance.now() > deadline) throw conflict(claim, held);
    await pause(times.pollMs);
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function textOf({ nonce, holder }: Claim): string {
  return JSON.stringify({ nonce, holder });
}

/** @returns undefined for a key that is free; something unreadable is held by nobody we know */
function heldOf({ text }: Stored): Held | undefined {
  if (text === undefined) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && "nonce" in value && "holder" in value) {
      return { nonce: String(value.nonce), holder: String(value.holder) };
    }
  } catch {
    // not ours: below
  }
  return { nonce: "", holder: text };
}

function conflict(claim: Claim, held: Held): MarmotError {
  const where = held.holder === claim.holder
    ? `another process at the same place (${held.holder})`
    : `a process at another place (${held.holder})`;
  return new MarmotError(
    `Cannot run as node ${claim.nodeId}: ${where} runs with the same identity. The database file was probably copied ` +
      "while it belonged to a node. Stop the other process, or make a proper copy with: marmot clone --db-path A --to B.",
    EXIT.conflict,
  );
}

/** Held until released or lost. A broker that is away costs nothing: the lease is taken again when it is back. */
class RenewedLease implements Lease {
  readonly #lost = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #renewing: Promise<void> | undefined;
  #released = false;
  readonly #offLink: () => void;

  constructor(
    private readonly store: KeyStore,
    private readonly key: string,
    private readonly claim: Claim,
    private readonly times: LeaseTimes,
    private readonly log: Log,
    private revision: number,
  ) {
    this.#offLink = store.link.onChange((connected) => {
      if (connected) this.#schedule(0);
    });
    this.#schedule(times.renewMs);
  }

  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  async release(): Promise<void> {
    if (this.#released) return;
    this.#end();
    await this.store.link.farewell(() => this.#giveBack());
  }

  async #giveBack(): Promise<void> {
    await this.#renewing;
    if (this.lost.aborted) return;
    await this.store.delete(this.key, this.revision);
  }

  #end(): void {
    this.#released = true;
    clearTimeout(this.#timer);
    this.#offLink();
  }

  #schedule(ms: number): void {
    clearTimeout(this.#timer);
    if (this.#released) return;
    this.#timer = setTimeout(() => {
      this.#renewing ??= this.#renew().finally(() => {
        this.#renewing = undefined;
        this.#schedule(this.times.renewMs);
      });
    }, ms);
  }

  async #renew(): Promise<void> {
    if (!this.store.link.connected) return;
    try {
      const renewed = await this.store.set(this.key, textOf(this.claim), this.revision, this.times.ttlMs);
      if (renewed !== undefined) this.revision = renewed;
      else await this.#retake();
    } catch (error) {
      this.log.debug("Lease not renewed, trying again", {
        error: error instanceof Error ? error.message : String(error),
      });
    }
  }

  /** The key is not as we left it: it expired, an answer to us was lost, or another process took it. */
  async #retake(): Promise<void> {
    const stored = await this.store.get(this.key);
    const held = heldOf(stored);
    if (held !== undefined && held.nonce !== this.claim.nonce) {
      this.#end();
      this.#lost.abort(conflict(this.claim, held));
      return;
    }
    const revision = await this.store.set(this.key, textOf(this.claim), stored.revision, this.times.ttlMs);
    if (revision !== undefined) this.revision = revision;
    else this.#schedule(0);
  }
}
