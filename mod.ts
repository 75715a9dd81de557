/**
 * Marmot as a library: replicate a SQLite file from inside a Deno or Bun program.
 *
 * ```ts
 * import { connectBroker, startNode, systemRuntime } from "./mod.ts";
 *
 * const silent = { debug() {}, info() {}, warn() {}, error() {} };
 * const node = await startNode({
 *   dbPath: "my.db",
 *   connect: () => connectBroker({ urls: ["nats://127.0.0.1:4222"] }, silent),
 *   runtime: systemRuntime(silent),
 * });
 * // write to my.db with any SQLite library, here or in another process …
 * await node.settled(); // … all of it was ordered by the cluster and read back
 * console.log(node.status().shards);
 * await node.stop();
 * ```
 *
 * `node.failed` resolves when the node can't go on by itself, because another process has its identity.
 */
export type { Broker, Lease, Placement, Registry } from "./src/broker.ts";
export type { ChangeStream, MessageIdentity, StreamMessage, StreamState, Subscription } from "./src/change_stream.ts";
export { cleanUp, type CleanUpOptions } from "./src/cleanup.ts";
export { cloneDatabase, type CloneOptions } from "./src/clone.ts";
export { BrokerUnreachableError, EXIT, type ExitCode, MarmotError } from "./src/errors.ts";
export { type Node, type NodeOptions, type NodePlace, startNode } from "./src/marmot.ts";
export { type BrokerOptions, connectBroker } from "./src/nats/broker.ts";
export { type EmbeddedServer, type ServerOptions, startServer } from "./src/nats/server.ts";
export type { Clock, Log, LogFields, Random, Runtime } from "./src/runtime.ts";
export { systemRuntime } from "./src/runtime/system.ts";
export { formatStatus, type NodeStatus, readStatus, type ShardStatus, type StatusReport } from "./src/status.ts";
