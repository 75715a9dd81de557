/** What the nodes of a cluster agree on: a KV bucket beside the streams. Every write is a compare-and-set. */
import { createHash } from "node:crypto";
import { jetstream, type JetStreamManager } from "@nats-io/jetstream";
import { type KV, Kvm } from "@nats-io/kv";
import type { Agreement, Lease, Registry } from "../broker.ts";
import { EXIT, MarmotError } from "../errors.ts";
import type { Log } from "../runtime.ts";
import type { NatsLink } from "./connect.ts";
import { JETSTREAM, jetStreamCode, jetStreamFailure } from "./failure.ts";
import { KeyStore } from "./key_store.ts";
import { acquireLease, LEASE_TIMES, type LeaseTimes } from "./lease.ts";
import { findStream } from "./streams.ts";

/** how long the trace of an expired key stays */
const MARKER_TTL_MS = 60_000;
const SHARDS_KEY = "shards";

export interface RegistryOptions {
  readonly streamPrefix: string;
  readonly replicas: number;
  /** change the bucket's replicas if they differ */
  readonly updateStreams: boolean;
  /** for tests */
  readonly leaseTimes?: LeaseTimes;
}

/**
 * Opens the bucket, or makes it.
 * @throws MarmotError (broker, refused) or BrokerUnreachableError
 */
export async function openRegistry(
  link: NatsLink,
  manager: JetStreamManager,
  options: RegistryOptions,
  log: Log,
): Promise<KvRegistry> {
  const bucket = `${options.streamPrefix}-registry`;
  const verb = `open the registry ${bucket}`;
  try {
    const open = (): Promise<KV> =>
      link.request(() =>
        new Kvm(jetstream(link.connection)).create(bucket, {
          replicas: options.replicas,
          history: 1,
          markerTTL: MARKER_TTL_MS,
          // reads from the leader: a lagging replica would say that a key isn't there
          allow_direct: false,
        })
      );
    // made by another node meanwhile, with other replicas: then it is opened as it is
    const kv = await open().catch((error) =>
      jetStreamCode(error) === JETSTREAM.nameInUse ? open() : Promise.reject(error)
    );
    await reconcileBucket(manager, bucket, options, log);
    return new KvRegistry(new KeyStore(link, kv, bucket), manager, options, log);
  } catch (error) {
    throw jetStreamFailure(verb, error);
  }
}

/** The bucket may be another node's, or made by hand. */
async function reconcileBucket(
  manager: JetStreamManager,
  bucket: string,
  options: RegistryOptions,
  log: Log,
): Promise<void> {
  const stream = `KV_${bucket}`;
  const info = await findStream(manager, stream);
  if (info === undefined) return;
  if (info.config.allow_msg_ttl !== true) {
    throw new MarmotError(
      `Cannot use the registry ${bucket}: its keys can't expire (allow_msg_ttl is off), so it was not made by Marmot. ` +
        "Give another --stream-prefix, or delete that bucket.",
      EXIT.refused,
    );
  }
  const found = info.config.num_replicas;
  if (found === options.replicas) return;
  if (!options.updateStreams) {
    log.warn("Registry differs from what was asked for, and stays as it is", {
      bucket,
      setting: "replicas",
      found,
      wanted: options.replicas,
      flag: "--update-streams",
    });
    return;
  }
  await manager.streams.update(stream, { num_replicas: options.replicas });
  log.info("Registry updated", { bucket, setting: "replicas", found, wanted: options.replicas });
}

export class KvRegistry implements Registry {
  constructor(
    private readonly store: KeyStore,
    private readonly manager: JetStreamManager,
    private readonly options: RegistryOptions,
    private readonly log: Log,
  ) {}

  async agreeShards(shards: number): Promise<void> {
    try {
      // in this order: another node's streams exist only once the key does
      const otherStreams = await this.#hasOtherStreams(shards);
      const known = (await this.store.get(SHARDS_KEY)).text;
      if (known === undefined && otherStreams) {
        throw this.#otherShards(shards, "streams for another count", "Give --shards as the other nodes have it");
      }
      const agreed = Number(known ?? await this.#agree(SHARDS_KEY, String(shards)));
      if (agreed !== shards) throw this.#otherShards(shards, `${agreed} shards`, `Give --shards ${agreed}`);
    } catch (error) {
      throw jetStreamFailure("agree on the count of shards", error);
    }
  }

  async agreePlacement(table: string, proposal: Agreement): Promise<Agreement> {
    const text = await this.#agree(placementKey(table), JSON.stringify({ table, ...proposal })).catch(
      (error) => {
        throw jetStreamFailure(`agree on the placement of the table ${JSON.stringify(table)}`, error);
      },
    );
    const agreed = agreementOf(text, table);
    if (agreed !== undefined) return agreed;
    throw new MarmotError(
      `Cannot place the table ${JSON.stringify(table)}: the registry ${this.options.streamPrefix}-registry holds ` +
        "something for it that this Marmot doesn't know. Run the same version of Marmot on all nodes.",
      EXIT.refused,
    );
  }

  async lease(nodeId: string, nonce: string, holder: string): Promise<Lease> {
    const times = this.options.leaseTimes ?? LEASE_TIMES;
    try {
      return await acquireLease(this.store, `lease.${nodeId}`, { nodeId, nonce, holder }, times, this.log);
    } catch (error) {
      throw jetStreamFailure(`take the lease of node ${nodeId}`, error);
    }
  }

  /** The first to ask decides. @returns what was decided */
  async #agree(key: string, proposal: string): Promise<string> {
    for (;;) {
      const { text, revision } = await this.store.get(key);
      if (text !== undefined) return text;
      if (await this.store.set(key, proposal, revision) !== undefined) return proposal;
    }
  }

  /** A registry that was lost must not let a node start with another count than its streams have. */
  async #hasOtherStreams(shards: number): Promise<boolean> {
    const has = async (shard: number): Promise<boolean> =>
      await findStream(this.manager, `${this.options.streamPrefix}-${shard}`) !== undefined;
    return await has(1) && (!await has(shards) || await has(shards + 1));
  }

  #otherShards(shards: number, state: string, advice: string): MarmotError {
    return new MarmotError(
      `Cannot start with ${shards} ${shards === 1 ? "shard" : "shards"}: the cluster with the stream prefix ` +
        `${this.options.streamPrefix} has ${state}, and a row must stay in its shard. ` +
        `${advice}, or another --stream-prefix.`,
      EXIT.refused,
    );
  }
}

/** Table names may hold anything; keys hold little. */
function placementKey(table: string): string {
  return `placement.${createHash("sha256").update(table).digest("hex")}`;
}

/** @param table older versions said no home: it is the table itself */
function agreementOf(text: string, table: string): Agreement | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null || !("placement" in value)) return undefined;
  const { placement, home = table } = value as { placement: unknown; home?: unknown };
  if ((placement !== "rows" && placement !== "whole") || typeof home !== "string") return undefined;
  return { placement, home };
}
