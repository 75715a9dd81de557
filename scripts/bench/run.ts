/** What every scenario gets, and what several of them do. */
import type { Application, Work, Written } from "./application.ts";
import { type Cluster, Database, type Node, TABLE } from "./cluster.ts";
import { tempFolder } from "../../tests/support/tmp.ts";
import type { Measurement } from "./results.ts";
import type { System } from "./systems.ts";

export const NS_PER_SECOND = 1e9;
export const NS_PER_MS = 1e6;
const ARRIVAL_TIMEOUT_S = 900;
/** how often a reader looks for the mark while a writer runs: it costs 1 % of a core */
const MARK_PAUSE_S = 0.001;
/** how often tables are compared */
const COMPARE_PAUSE_S = 0.05;
const COMPARE_TIMEOUT_S = 60;
/** of text and blob; with the numbers a row has about 90 bytes */
export const ROW_SIZE = 72;
const WARM_UP_ROWS = 20_000;
const WARM_UP_SINGLE_ROWS = 500;
/** Below the rows that are measured, which then are appended, as those of bare SQLite are. */
const WARM_UP_FIRST = 1;
export const FIRST = 100_001;
/** Sums that differ when a row is missing, doubled or old, and that are exact in JSON. */
export const STATE = `SELECT count(*), sum(number % 1000003), sum(length(name)), sum(length(data)) FROM ${TABLE}`;

export interface Run {
  readonly systems: readonly System[];
  readonly rounds: number;
  /** fewer rows, for a first look or for CI */
  readonly quick: boolean;
  /** sizes that take long too */
  readonly large: boolean;
  say(line: string): void;
}

export interface Scenario {
  readonly name: string;
  /** one sentence for the document */
  readonly about: string;
  measure(run: Run): Promise<readonly Measurement[]>;
}

/** One result for each system, all systems in turn in each round. A system that fails in a round goes on in the next. */
export async function measureInTurn(
  run: Run,
  resultOf: (system: System) => Measurement,
  measure: (result: Measurement, system: System) => Promise<string>,
): Promise<Measurement[]> {
  const all = run.systems.map((system) => ({ system, result: resultOf(system) }));
  for (let round = 1; round <= run.rounds; round++) {
    for (const { system, result } of all) {
      const head = `${result.scenario}, ${result.variant}, round ${round} of ${run.rounds}: ${system.name}`;
      try {
        run.say(`${head}: ${await measure(result, system)}`);
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        result.failures.push(message.split("\n")[0] ?? "");
        run.say(`${head} FAILED: ${message}`);
      }
    }
  }
  return all.map(({ result }) => result);
}

export function seconds({ started, ended }: Written): number {
  return (ended - started) / NS_PER_SECOND;
}

export function rate(rows: number, ns: number): number {
  return rows / (ns / NS_PER_SECOND);
}

export function work(count: number, more: Partial<Work> = {}): Work {
  return {
    kind: "insert",
    first: FIRST,
    count,
    size: ROW_SIZE,
    table: TABLE,
    among: null,
    shuffled: false,
    turn: 1,
    ...more,
  };
}

/** Rows that updates and deletes need before they run. */
export async function prepare(app: Application, what: Work): Promise<void> {
  if (what.kind !== "insert") await app.fill(what);
}

/** Speed of bare SQLite, in a fresh database. @returns what it took */
export async function writeBare(what: Work, per: number, fill?: (app: Application) => Promise<void>): Promise<Written> {
  await using folder = await tempFolder();
  await using database = await Database.make(folder.file("bare.db"));
  await (fill ?? ((app) => prepare(app, what)))(database.app);
  return await database.app.write(what, per, 1);
}

/** Writes some rows, so that runtimes have compiled what they will run, and waits until they are everywhere. */
export async function warmUp(cluster: Cluster): Promise<void> {
  const { app } = cluster.node(0);
  const count = Math.max(100, Math.round(WARM_UP_ROWS * cluster.system.share));
  await app.write(work(count, { first: WARM_UP_FIRST }), 100);
  const single = Math.max(10, Math.round(WARM_UP_SINGLE_ROWS * cluster.system.share));
  await app.write(work(single, { first: WARM_UP_FIRST + WARM_UP_ROWS }), 1);
  for (const node of cluster.nodes.slice(1)) await arrived(node, await app.rows(STATE));
  await cluster.drained();
}

export interface Replicated {
  readonly written: Written;
  /** when the last row was there too, at each other node */
  readonly visible: readonly number[];
  /** largest WAL of the writer's database seen, in bytes */
  readonly wal: number;
}

/** Writes on the first node at full speed, and waits until everything is at all others. */
export async function writeReplicated(cluster: Cluster, what: Work, per: number, mark: number): Promise<Replicated> {
  const first = cluster.node(0);
  const others = cluster.nodes.slice(1);
  const seen = others.map((node) =>
    node.reader.watch("SELECT max(id) FROM mark", mark, MARK_PAUSE_S, ARRIVAL_TIMEOUT_S)
  );
  const walSizes = watchWal(first);
  const written = await first.app.write(what, per, mark);
  const wal = await walSizes();
  const watched = await Promise.all(seen);
  const state = await first.app.rows(STATE);
  const visible = await Promise.all(others.map(async (node, place) => {
    const atMark = watched[place]?.seen.at(-1)?.[1];
    if (!watched[place]?.reached || atMark === undefined) throw new Error(`rows never arrived at ${node.name}`);
    const compared = await arrived(node, state);
    // With one shard the mark is the last to arrive, and seen sooner. With several, rows may come after it.
    return cluster.shards === 1 ? atMark : compared;
  }));
  return { written, visible, wal };
}

/** Waits until a node's table is in this state. @returns when the read that saw it began */
export async function arrived(node: Node, state: readonly unknown[][]): Promise<number> {
  const at = await node.reader.equal(STATE, state[0] ?? [], COMPARE_PAUSE_S, COMPARE_TIMEOUT_S);
  if (at === null) throw new Error(`${node.name} does not get the same rows: ${await node.reader.rows(STATE)}`);
  return at;
}

/** Looks at the size of the WAL now and then; the answer stops and gives the largest. */
function watchWal(node: Node): () => Promise<number> {
  let largest = 0;
  const look = async () => {
    largest = Math.max(largest, await node.database.walBytes());
  };
  const timer = setInterval(() => void look(), 50);
  return async () => {
    clearInterval(timer);
    await look();
    return largest;
  };
}
