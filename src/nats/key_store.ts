/** The keys of one KV bucket, with what @nats-io/kv lacks: a TTL on updates, and compare-and-set that tells who was first. */
import { jetstream, type JetStreamClient } from "@nats-io/jetstream";
import type { KV } from "@nats-io/kv";
import type { NatsLink } from "./connect.ts";
import { JETSTREAM, jetStreamCode } from "./failure.ts";

/** how long an answer may take; a leader may be being elected */
const REQUEST_TIMEOUT_MS = 5_000;

/** A value and the revision that a compare-and-set names; a key that was deleted or expired has only the revision. */
export interface Stored {
  readonly text: string | undefined;
  /** 0: there never was such a key, or its trace is gone */
  readonly revision: number;
}

export class KeyStore {
  readonly #client: JetStreamClient;

  constructor(readonly link: NatsLink, private readonly kv: KV, private readonly bucket: string) {
    this.#client = jetstream(link.connection);
  }

  async get(key: string): Promise<Stored> {
    const entry = await this.link.request(() => this.kv.get(key));
    if (entry === null) return { text: undefined, revision: 0 };
    return { text: entry.operation === "PUT" ? entry.string() : undefined, revision: entry.revision };
  }

  /** @returns the new revision, or undefined when the key is not at `revision` any more */
  async set(key: string, text: string, revision: number, ttlMs?: number): Promise<number | undefined> {
    return await this.#compareAndSet(() =>
      this.#client.publish(`$KV.${this.bucket}.${key}`, text, {
        timeout: REQUEST_TIMEOUT_MS,
        expect: { lastSubjectSequence: revision },
        ...(ttlMs === undefined ? {} : { ttl: `${Math.ceil(ttlMs / 1_000)}s` }),
      }).then((ack) => ack.seq)
    );
  }

  /** @returns whether it was still at `revision` */
  async delete(key: string, revision: number): Promise<boolean> {
    return await this.#compareAndSet(() => this.kv.delete(key, { previousSeq: revision }).then(() => 1)) !== undefined;
  }

  async #compareAndSet(operation: () => Promise<number>): Promise<number | undefined> {
    try {
      return await this.link.request(operation);
    } catch (error) {
      const code = jetStreamCode(error);
      if (code === JETSTREAM.wrongLastSequence || code === JETSTREAM.wrongLastSequenceUnknown) return undefined;
      throw error;
    }
  }
}
