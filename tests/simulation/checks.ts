/** The promises, looked at from outside: with a connection of its own, in the file as it is. */
import type { Stored } from "./cluster_broker.ts";
import type { Entry } from "./entries.ts";
import type { Glance, NodeFile } from "./file.ts";
import type { SimulatedNode } from "./node.ts";
import { Violation } from "./violation.ts";
import type { World } from "./world.ts";

/** What must hold for a node after everything that happens. */
export function check(world: World, node: SimulatedNode): void {
  if (!node.isInstalled || !node.file.hasChanged()) return;
  // where few statements read, a lock for each costs less than a transaction
  if (node.changing === undefined) checkState(world, node);
  else node.file.reading(() => checkState(world, node));
}

function checkState(world: World, node: SimulatedNode): void {
  world.counters.add("checks");
  const glance = node.file.glance();
  const pending = noEcho(world, node, glance);
  wholeTransactions(world, node, glance);
  triggersOnce(node, glance);
  const at = positions(world, node, glance);
  world.note(`${world.time.now} ${node.name} ${at.map((stored) => stored?.sequence ?? 0)} ${pending.length}`);
  const late = world.setting.later.length > 0 && isOvertaken(node);
  if (isYoung(world, node, at) || late) return;
  lawful(world, node, at, pending);
  if (node.changing?.check(node.file, at, node.changes)) world.counters.add("states of changing tables compared");
}

/** I3: the cursor is in the file, beside the rows. */
function positions(world: World, node: SimulatedNode, { cursors }: Glance): (Stored | undefined)[] {
  return world.broker.streams.map((stream, shard) => {
    const cursor = cursors.get(shard);
    if (cursor === undefined || cursor.sequence === 0) return undefined;
    const stored = stream.at(cursor);
    if (stored === undefined) {
      throw new Violation(`${node.name} stands at ${cursor.sequence} of shard ${shard}, which never was`);
    }
    return stored;
  });
}

/** A clone holds accepted changes of its source ahead of its cursor, until it has passed them. */
function isYoung(world: World, node: SimulatedNode, at: readonly (Stored | undefined)[]): boolean {
  if (node.ahead.size === 0) return false;
  const left = new Set(node.ahead);
  for (let stored of at) {
    for (; stored !== undefined; stored = stored.before) {
      for (const { stamp } of world.law.of(stored).entries) left.delete(stamp);
    }
  }
  node.ahead = left;
  return left.size > 0;
}

function lawful(
  world: World,
  node: SimulatedNode,
  at: readonly (Stored | undefined)[],
  pending: readonly Entry[],
): void {
  const wanted = node.file.lawful(at, pending);
  const found = node.file.dump(pending.length === 0);
  if (found !== wanted) throw new Violation(`I1: ${node.name} is not what the law says\n${difference(wanted, found)}`);
  world.counters.add("states compared with the law");
}

/**
 * I5: entries are made by the application's transactions, and by Marmot where it logs rows as they are.
 * @returns the entries of tables that the law speaks of, as they were made
 */
function noEcho(world: World, node: SimulatedNode, { stamps }: Glance): Entry[] {
  const others = node.file.otherPending();
  const isNew = (stamp: string) => !world.entries.has(stamp);
  const entries = [...stamps.some(isNew) ? node.file.pending() : [], ...others];
  const fresh = entries.filter(({ stamp }) => isNew(stamp));
  for (const entry of fresh) {
    if (!world.entries.isExpected(entry.stamp)) {
      throw new Violation(`I5: ${node.name} logged ${entry.table} ${entry.values} by itself`);
    }
    world.entries.record(entry);
    node.must.add(entry.stamp);
  }
  return stamps.map((stamp) => world.entries.of(stamp));
}

/** Until Marmot has put its triggers behind one that was made after them, entries may be in the wrong order. */
export function isOvertaken({ file }: SimulatedNode): boolean {
  return file.ofSchema(newerTriggers).length > 0;
}

function newerTriggers(file: NodeFile): unknown[] {
  return file.rows(
    "SELECT 1 FROM sqlite_schema AS u, sqlite_schema AS m WHERE u.type = 'trigger' AND m.type = 'trigger' " +
      "AND u.tbl_name = m.tbl_name AND u.name NOT LIKE '\\_\\_marmot%' ESCAPE '\\' AND m.name LIKE '\\_\\_marmot%' ESCAPE '\\' " +
      "AND u.rowid > m.rowid LIMIT 1",
  );
}

/** I4, as a reader sees it. With several shards the two rows may become visible apart. */
function wholeTransactions(world: World, node: SimulatedNode, { pair }: Glance): void {
  if (world.shards > 1) return;
  if (pair.length > 0 && (pair.length === 1 || pair[0] !== pair[1])) {
    throw new Violation(`I4: ${node.name} shows half of a transaction: ${pair.join()}`);
  }
}

/** I5: a trigger that writes outside of replication takes effect once for each change, on each node. */
function triggersOnce(node: SimulatedNode, { audit, ledger }: Glance): void {
  if (audit === ledger) return;
  const wrong = node.file.rows(
    "SELECT what FROM audit GROUP BY what HAVING count(*) > 1 UNION ALL SELECT id FROM ledger WHERE id NOT IN (SELECT what FROM audit) " +
      "UNION ALL SELECT what FROM audit WHERE what NOT IN (SELECT id FROM ledger)",
  );
  throw new Violation(`I5: on ${node.name} the trigger did not take effect once for ${wrong.join()}`);
}

/** Lines that only one of two texts has. */
export function difference(wanted: string, found: string): string {
  const [some, others] = [new Set(wanted.split("\n")), new Set(found.split("\n"))];
  const only = (a: Set<string>, b: Set<string>) =>
    [...a].filter((line) => !b.has(line)).map((line) => line.slice(0, 200));
  return [
    ...only(some, others).map((line) => `missing ${line}`),
    ...only(others, some).map((line) => `extra   ${line}`),
  ]
    .join("\n");
}
