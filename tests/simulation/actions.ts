/** What happens in a history, besides what Marmot does by itself: each action is drawn by its weight. */
import { cloneDatabase } from "../../src/clone.ts";
import { MarmotError } from "../../src/errors.ts";
import type { SimulatedNode } from "./node.ts";
import { Violation } from "./violation.ts";
import type { World } from "./world.ts";

const MOST_NODES = 8;
/** Pauses between actions, ms */
const PAUSES = [0, 0.5, 3, 3, 20, 20, 100, 100, 400, 1_500];
const LONG_PAUSE_MS = 20_000;
/** Longer than a lock may be held without a word, ms */
const LONG_HOLD_MS = 12_000;
/** Within so many statements a lock comes: any, those of a start, those with which a commit is noticed */
const STATEMENTS = 200;
const START_STATEMENTS = 40;
const NOTICING_STATEMENTS = 4;
/** Within this, what was written is usually published, ms */
const SCANNED_MS = 30;
const JUMPS_MS = [50, 2_000, 3_600_000];
const SILENT = { debug() {}, info() {}, warn() {}, error() {} };

type Action = (world: World, node: SimulatedNode) => void | Promise<void>;

const ACTIONS: Readonly<Record<string, Action>> = {
  write: (_world, { application }) => void application.write(),
  hold: ({ random }, { application }) =>
    application.hold(random.below(50) === 0 ? LONG_HOLD_MS : random.pick([1, 5, 30, 150])),
  kill: (_world, node) => node.kill(),
  fuse({ random }, node) {
    if (node.alive !== undefined) node.alive.fuse = 1 + random.below(random.pick([5, 60, 300]));
  },
  start(_world, node) {
    if (node.alive === undefined) node.start();
  },
  stop(world, node) {
    if (!node.alive?.started) return;
    world.counters.add("stops");
    node.alive.stop().catch((error) => world.violated(error));
  },
  part(world, node) {
    world.counters.add("partitions");
    const parted = world.random.below(3) === 0 ? world.nodes.filter(() => world.random.below(2) === 0) : [node];
    for (const one of parted) setAway(one, true);
  },
  mend(world) {
    for (const node of world.nodes) if (world.random.below(2) === 0) setAway(node, false);
  },
  brokerRestart(world) {
    if (!world.broker.up) return;
    world.counters.add("broker restarts");
    brokerRestarts(world);
  },
  busy({ random }, node) {
    const message = "database is locked";
    const [kind, most] = random.pick([["commit", 1], ["any", STATEMENTS], ["any", START_STATEMENTS]] as const);
    // right behind what Marmot is about to notice
    const after = most === START_STATEMENTS && node.application.write() ? NOTICING_STATEMENTS : most;
    node.fault = { kind, after: random.below(after), message };
  },
  full({ random }, node) {
    const [kind, most] = random.pick([["commit", 1], ["write", 1], ["create", 4]] as const);
    node.fault = { kind, after: random.below(most), message: "database or disk is full" };
  },
  jump({ random, counters }, node) {
    counters.add("clock jumps");
    node.alive?.jump(random.pick(JUMPS_MS));
  },
  save(world, node) {
    if (node.application.holding || !node.isInstalled) return;
    const path = world.path(`${node.name}.copy${world.next()}`);
    node.file.copyTo(path);
    node.copies.push({ path, ahead: node.ahead, changes: node.changes, rebuilt: node.rebuilt });
  },
  loseTail(world) {
    const stream = world.random.pick(world.broker.streams);
    if (!world.broker.up) return;
    world.counters.add("tails of a stream lost");
    brokerRestarts(world);
    stream.loseTail(1 + world.random.below(6), world.random.below(2) === 0);
  },
  purge(world) {
    const stream = world.random.pick(world.broker.streams);
    world.counters.add("streams purged");
    stream.purge(world.random.below(2) === 0 ? stream.messages.length : world.random.below(stream.messages.length + 1));
  },
  change(world, node) {
    const sql = world.setting.later[node.changes];
    if (sql === undefined || !node.isInstalled) return;
    if (/ RENAME TO /.test(sql)) renameAmongWrites(world, node);
    else node.application.change(sql);
  },
  twin(world, node) {
    if (!node.alive?.started || node.application.holding || !world.broker.leases.has(node.alive.running.id)) return;
    world.counters.add("copies started as they are");
    const path = world.path(`twin${world.next()}.db`);
    node.file.copyTo(path);
    world.addTwin(path, node.changes);
  },
  travel,
  clone,
};

/** What is written before a rename is on its way while what is written after it follows. */
function renameAmongWrites(world: World, node: SimulatedNode): void {
  node.application.write();
  world.time.after(world.random.below(SCANNED_MS), () => {
    const sql = world.setting.later[node.changes];
    if (world.ending || sql === undefined || !node.application.change(sql)) return;
    node.application.write();
  });
}

function brokerRestarts(world: World): void {
  world.broker.up = false;
  for (const node of [...world.nodes, ...world.twins]) node.alive?.link?.brokerEnded();
  world.time.after(world.random.pick([10, 500, 10_000]), () => brokerIsBack(world));
}

/** Does the next thing. @returns its name */
export async function act(world: World): Promise<string> {
  const { random, setting } = world;
  const { cloned } = world;
  world.cloned = undefined;
  if (cloned !== undefined && random.below(2) === 0) {
    await travel(world, cloned);
    return `travel ${cloned.name}`;
  }
  const node = random.pick(world.nodes);
  const names = Object.keys(setting.weights);
  const total = names.reduce((sum, name) => sum + setting.weights[name]!, 0);
  let x = random.next() * total;
  const name = names.find((one) => (x -= setting.weights[one]!) < 0)!;
  world.trace(node.name, () => name);
  await ACTIONS[name]!(world, node);
  return `${name} ${node.name}`;
}

export function drawPause({ random }: World): number {
  return random.below(100) === 0 ? LONG_PAUSE_MS : random.pick(PAUSES) * random.next();
}

export function setAway(node: SimulatedNode, away: boolean): void {
  if (node.away === away) return;
  node.away = away;
  const link = node.alive?.link;
  if (away) link?.break();
  else link?.mend();
}

export function brokerIsBack(world: World): void {
  if (world.broker.up) return;
  world.broker.up = true;
  for (const node of [...world.nodes, ...world.twins]) node.alive?.link?.comeBack();
}

/** The file is put back to an older copy: while Marmot is down, under it as a new file, or in place. */
async function travel(world: World, node: SimulatedNode): Promise<void> {
  const { random, counters, setting } = world;
  // not to before a rename: docs/DESIGN.md names that as a limit
  const copies = node.copies.filter(({ changes }) => !setting.migrations?.renames || changes === node.changes);
  if (copies.length === 0) return;
  const copy = random.pick(copies);
  const way = random.below(3);
  counters.add("files put back to an older copy");
  world.trace(node.name, () => `goes back to ${copy.path}, ${["while it is down", "as a new file", "in place"][way]}`);
  if (way === 0) node.kill();
  node.application.letGo();
  if (way === 2) await node.file.restoreFrom(copy.path);
  else node.file.replaceBy(copy.path);
  node.ahead = copy.ahead;
  node.changes = copy.changes;
  node.rebuilt = copy.rebuilt;
  node.wentBack = true;
  node.must = new Set(node.file.allPending().map(({ stamp }) => stamp));
  node.endClones.abort(new Error("the source went back"));
  node.endClones = new AbortController();
  node.changed = true;
}

/** `marmot clone` makes a new node, once what is pending in the copy was read back by its source. */
async function clone(world: World, node: SimulatedNode): Promise<void> {
  if (world.nodes.length >= MOST_NODES || node.application.holding || !node.isInstalled) return;
  const { time, counters } = world;
  const asleep = Promise.withResolvers<void>();
  const to = world.path(`clone${world.next()}.db`);
  const pending = node.file.allPending();
  const ahead = new Set([...node.ahead, ...pending.map(({ stamp }) => stamp)]);
  const { changes } = node;
  const { signal } = node.endClones;
  const made = cloneDatabase({
    from: node.path,
    to,
    log: SILENT,
    signal,
    clock: {
      now: () => time.now,
      sleep(ms) {
        asleep.resolve();
        return new Promise((resolve, reject) =>
          void time.after(ms, () => signal.aborted ? reject(signal.reason) : resolve())
        );
      },
    },
  }).then(
    () => {
      if (world.closed || signal.aborted) return;
      counters.add("clones");
      const made = world.addNode(to, ahead, changes);
      made.aheadTo = new Map(node.aheadTo);
      for (const [shard, cursor] of pending.length > 0 ? node.file.cursors() : []) {
        if (cursor.sequence > (made.aheadTo.get(shard)?.sequence ?? 0)) made.aheadTo.set(shard, cursor);
      }
      world.cloned = node;
    },
    (error) => {
      if (!(error instanceof MarmotError) && !signal.aborted) world.violated(new Violation(`no clone: ${error.stack}`));
    },
  );
  // the copy itself is made in real time, while nothing else moves
  await Promise.race([made, asleep.promise]);
}
