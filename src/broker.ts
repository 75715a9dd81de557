/** What the core asks of a cluster's broker: one stream for each shard, and a place to agree. */
import type { ChangeStream } from "./change_stream.ts";

/** Where a table's rows go: each row to the shard of its key, or all of them to one. */
export type Placement = "rows" | "whole";

/** What the cluster agrees about a table. */
export interface Agreement {
  readonly placement: Placement;
  /** the name that its rows are hashed under: a rename must not move them away from what was said of them before */
  readonly home: string;
}

/** Held by one process for a node id; renewed by its holder until released. */
export interface Lease {
  /** aborted, with a MarmotError as reason, when another process took this identity */
  readonly lost: AbortSignal;
  release(): Promise<void>;
}

/** Small facts that all nodes of a cluster agree on, by compare-and-set (a NATS KV bucket). */
export interface Registry {
  /** The first node decides. Rejects with MarmotError (refused) when the cluster has another count of shards. */
  agreeShards(shards: number): Promise<void>;
  /** The first node to ask decides; everyone gets that answer. `table` is compared as given. */
  agreePlacement(table: string, proposal: Agreement): Promise<Agreement>;
  /**
   * Takes the lease of a node id. `holder` names the place (machine, database file) this process runs at: a lease left
   * by a process of the same place is taken over, since that place's lock shows that it is gone. A lease of another
   * place is waited for until it expires; if it is renewed, rejects with MarmotError (conflict).
   */
  lease(nodeId: string, nonce: string, holder: string): Promise<Lease>;
}

export interface Broker {
  /** one for each shard, in order */
  readonly streams: readonly ChangeStream[];
  readonly registry: Registry;
  /** for the log and status: server version and address, without credentials */
  readonly description: string;
  /** called whenever the connection is lost or back; at once with the present state. @returns a function that ends it */
  onConnection(listener: (connected: boolean) => void): () => void;
  close(): Promise<void>;
}
