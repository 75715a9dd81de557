/** What must hold when nothing is left to do. */
import type { SimulatedNode } from "./node.ts";
import { Violation } from "./violation.ts";
import type { World } from "./world.ts";

/** @returns what is still going on; undefined once all is at rest, and as it must be */
export function atRest(world: World): string | undefined {
  for (const node of world.nodes) {
    const unrest = unrestOf(world, node);
    if (unrest !== undefined) return `${node.name}: ${unrest}`;
  }
  allEqual(world);
  nothingLost(world);
  inOrder(world);
  return undefined;
}

function unrestOf(world: World, node: SimulatedNode): string | undefined {
  const process = node.alive;
  if (!process?.started) return "it has not started";
  const status = process.running.status();
  const pending = node.file.pending();
  if (pending.length > 0) return `${pending.length} pending: ${JSON.stringify(status)}`;
  if (status.parked.length > 0) return `parked: ${JSON.stringify(status.parked)}`;
  if (status.stops.length > 0) return `stopped: ${status.stops}`;
  if (status.shards.length < world.shards) return "not connected";
  for (const [shard, { cursor, publisher, stopped }] of status.shards.entries()) {
    if (stopped !== null) return `stopped: ${stopped}`;
    if (cursor !== world.broker.streams[shard]!.end) return `at ${cursor} of ${world.broker.streams[shard]!.end}`;
    if (publisher !== "ready") return `publisher ${publisher}`;
  }
  return undefined;
}

function allEqual({ nodes }: World): void {
  const [first, ...others] = nodes;
  const wanted = first!.file.dump(true);
  for (const other of others) {
    if (other.file.dump(true) !== wanted) throw new Violation(`I1: ${other.name} is not equal to ${first!.name}`);
  }
}

/** Every write that was committed, and not undone by going back in time, is in a stream as an accepted change. */
function nothingLost(world: World): void {
  const accepted = new Set<string>();
  eachAccepted(world, (_origin, stamp) => accepted.add(stamp));
  for (const { name, must } of world.nodes) {
    for (const stamp of must) if (!accepted.has(stamp)) throw new Violation(`a write of ${name} is lost: ${stamp}`);
  }
}

/** No old value of an origin landed over a newer one. */
function inOrder(world: World): void {
  if (world.nodes.some(({ wentBack }) => wentBack)) return;
  const last = new Map<string, number>();
  eachAccepted(world, (origin, stamp) => {
    const { table, order } = world.entries.of(stamp);
    if (order <= (last.get(`${origin} ${table}`) ?? -1)) {
      throw new Violation(`an old value of ${table} landed over a newer one of its origin`);
    }
    last.set(`${origin} ${table}`, order);
  });
}

function eachAccepted(world: World, body: (origin: string, stamp: string) => void): void {
  for (const stream of world.broker.streams) {
    const way = [];
    for (let stored = stream.tip; stored !== undefined; stored = stored.before) way.push(stored);
    for (const stored of way.reverse()) {
      const { origin, entries } = world.law.of(stored);
      for (const { stamp } of entries) body(`${stream.name} ${origin}`, stamp);
    }
  }
}
