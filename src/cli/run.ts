/** `marmot --db-path FILE`: runs a node until it is told to stop. */
import type { EffectiveConfig } from "../config/effective.ts";
import { EXIT, type ExitCode } from "../errors.ts";
import { type Node, startNode } from "../marmot.ts";
import type { Log } from "../runtime.ts";
import { serviceManager } from "../runtime/service_manager.ts";
import { systemRuntime } from "../runtime/system.ts";
import type { BrokerSource } from "./broker_source.ts";

/**
 * Resolves once the node has stopped: because `stop` was aborted, or because it had to.
 * @throws MarmotError when it can't start
 */
export async function runNode(
  { config }: EffectiveConfig,
  dbPath: string,
  source: BrokerSource,
  log: Log,
  stop: AbortSignal,
): Promise<ExitCode> {
  const { create, wal, backfill, rowidTables, include, exclude, shards } = config;
  const runtime = systemRuntime(log);
  // Only a start is cut short; a running node is asked to stop, since it has something to publish before.
  const starting = new AbortController();
  const cutShort = () => starting.abort(stop.reason);
  stop.addEventListener("abort", cutShort, { once: true });
  const { connect } = source;
  const { signal } = starting;
  const tables = { rowidTables, include, exclude };
  let node: Node;
  try {
    node = await startNode({ dbPath, create, wal, backfill, ...tables, shards, connect, runtime, signal });
  } catch (error) {
    if (stop.aborted) return EXIT.ok;
    throw error;
  } finally {
    stop.removeEventListener("abort", cutShort);
  }
  const service = serviceManager(log);
  service.ready(`Capturing ${node.dbPath}`);
  const failure = await Promise.race([aborted(stop), node.failed]);
  service.stopping();
  if (failure !== undefined) log.error(failure.message);
  await node.stop();
  log.info("Stopped", { db: dbPath });
  return failure?.exitCode ?? EXIT.ok;
}

function aborted(signal: AbortSignal): Promise<undefined> {
  if (signal.aborted) return Promise.resolve(undefined);
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(undefined), { once: true }));
}
