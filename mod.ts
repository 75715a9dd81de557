/**
 * Marmot as a library: replicates a SQLite file from inside a Deno or Bun program.
 *
 * ```ts
 * import { DatabaseSync } from "node:sqlite";
 * import { connectBroker, startNode, systemRuntime } from "./mod.ts";
 *
 * const node = await startNode({
 *   dbPath: "my.db",
 *   create: true,
 *   connect: () => connectBroker({ urls: ["nats://127.0.0.1:4222"] }, console),
 *   runtime: systemRuntime(console),
 * });
 * const db = new DatabaseSync("my.db", { timeout: 5000 });
 * db.exec("CREATE TABLE notes(id TEXT PRIMARY KEY, body TEXT); INSERT INTO notes VALUES ('a', 'hello')");
 * await node.settled(); // what was written so far was ordered by the cluster and read back
 * console.log(node.status().shards);
 * await node.stop();
 * ```
 *
 * `node.failed` resolves when the node can't go on by itself, because another process has its identity. A broker that is
 * away, a full disk, or a table that changes can't be applied to do not end a node: `status` tells of them.
 *
 * Other processes may write to the file with any SQLite library. This one must use node:sqlite, and open the file in no
 * other way: a second copy of the SQLite library, or a file descriptor that is closed, would drop the locks of the first.
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
