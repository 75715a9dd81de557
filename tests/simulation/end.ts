/** What must hold when nothing is left to do. */
import type { ClusterStream, Position } from "./cluster_broker.ts";
import type { SimulatedNode } from "./node.ts";
import { difference, isOvertaken } from "./checks.ts";
import { Violation } from "./violation.ts";
import type { World } from "./world.ts";

/** @returns what is still going on; undefined once all is at rest, and as it must be */
export function atRest(world: World): string | undefined {
  const whole: SimulatedNode[] = [];
  let stopped = 0;
  for (const node of world.nodes) {
    const cursors = node.file.cursors();
    const cutOff = world.broker.streams.map((stream, shard) => {
      const cursor = cursors.get(shard);
      const ahead = node.aheadTo.get(shard);
      return isCutOff(stream, cursor) || (ahead?.sequence ?? 0) > (cursor?.sequence ?? 0) && !holds(stream, ahead!);
    });
    const unrest = unrestOf(world, node, cutOff);
    if (unrest !== undefined) return `${node.name}: ${unrest}`;
    if (cutOff.includes(true)) stopped++;
    else whole.push(node);
  }
  world.counters.add("nodes stopped by name", stopped);
  allEqual(whole);
  for (const node of whole) fullTextAgrees(world, node);
  nothingLost(world, whole);
  inOrder(world);
  return undefined;
}

/** Messages it has passed are no longer there, or those that it needs: it must stop by name. */
function isCutOff(stream: ClusterStream, cursor: Position | undefined): boolean {
  const sequence = cursor?.sequence ?? 0;
  if (sequence + 1 < stream.state().firstSequence) return true;
  if (cursor === undefined || sequence === 0) return false;
  return !holds(stream, cursor);
}

/** Is the message there that was there once? */
function holds(stream: ClusterStream, position: Position): boolean {
  const passed = stream.at(position);
  let at = stream.tip;
  while (at !== undefined && at.sequence > position.sequence) at = at.before;
  return at === passed;
}

function unrestOf(world: World, node: SimulatedNode, cutOff: readonly boolean[]): string | undefined {
  const process = node.alive;
  if (!process?.started) return "it has not started";
  const { migrations, later } = world.setting;
  if (migrations !== undefined && node.changes < later.length) return "its schema is not the last one";
  if (isOvertaken(node)) return "a trigger was made after Marmot's";
  const status = process.running.status();
  if (status.parked.length > 0) return `parked: ${JSON.stringify(status.parked)}`;
  if (status.stops.length > 0) return `stopped: ${status.stops}`;
  if (status.shards.length < world.shards) return "not connected";
  for (const [shard, { cursor, publisher, stopped }] of status.shards.entries()) {
    if (cutOff[shard]) {
      if (stopped === null) return `${status.shards[shard]!.stream} is cut off and does not say so`;
      continue;
    }
    if (stopped !== null) return `stopped: ${stopped}`;
    if (cursor !== world.broker.streams[shard]!.end) return `at ${cursor} of ${world.broker.streams[shard]!.end}`;
    if (publisher !== "ready") return `publisher ${publisher}`;
  }
  const pending = node.file.allPending();
  if (pending.length > 0 && !cutOff.includes(true)) {
    return `pending: ${pending.map(({ table, seq }) => `${table} ${seq}`)}`;
  }
  return undefined;
}

/** The full-text index that triggers keep says what its table says. */
function fullTextAgrees({ setting }: World, { name, file }: SimulatedNode): void {
  if (!setting.tables.some((table) => table.name === "notes")) return;
  try {
    file.app.exec("BEGIN; INSERT INTO fts(fts, rank) VALUES ('integrity-check', 1); ROLLBACK");
  } catch (error) {
    throw new Violation(`the full-text index of ${name} does not fit its table: ${error}`);
  }
}

function allEqual([first, ...others]: readonly SimulatedNode[]): void {
  const dump = (node: SimulatedNode) =>
    node.world.setting.migrations === undefined ? node.file.dump(true) : node.file.changingDump();
  const wanted = first === undefined ? "" : dump(first);
  for (const other of others) {
    const found = dump(other);
    if (found !== wanted) {
      throw new Violation(`I1: ${other.name} is not equal to ${first?.name}\n${difference(wanted, found)}`);
    }
  }
}

/** Every write that was committed, and not undone by going back in time, is in a stream as an accepted change. */
function nothingLost(world: World, nodes: readonly SimulatedNode[]): void {
  const accepted = new Set<string>();
  eachAccepted(world, (_origin, stamp) => accepted.add(stamp));
  for (const { name, must } of nodes) {
    for (const stamp of must) if (!accepted.has(stamp)) throw new Violation(`a write of ${name} is lost: ${stamp}`);
  }
}

/** No old value of an origin landed over a newer one. Of a file that went back what was pending then is published again. */
function inOrder(world: World): void {
  const steady = world.nodes.filter(({ wentBack }) => !wentBack);
  const origins = new Set(
    steady.map(({ file }) => file.rows("SELECT value FROM __marmot__node WHERE name = 'id'")[0]![0]),
  );
  const last = new Map<string, number>();
  eachAccepted(world, (origin, stamp, stream) => {
    if (!origins.has(origin)) return;
    const { table, order } = world.entries.of(stamp);
    const of = `${stream} ${origin} ${table}`;
    if (order <= (last.get(of) ?? -1)) {
      throw new Violation(`an old value of ${table} landed over a newer one of its origin`);
    }
    last.set(of, order);
  });
}

function eachAccepted(world: World, body: (origin: string, stamp: string, stream: string) => void): void {
  for (const stream of world.broker.streams) {
    const way = [];
    for (let stored = stream.tip; stored !== undefined; stored = stored.before) way.push(stored);
    for (const stored of way.reverse()) {
      const { origin, entries } = world.law.of(stored);
      for (const { stamp } of entries) body(origin, stamp, stream.name);
    }
  }
}
