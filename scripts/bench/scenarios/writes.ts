/** Writing at full speed: bare SQLite, with capture while Marmot is stopped, and replicated; and how soon it arrives. */
import type { Kind, Written } from "../application.ts";
import { startCluster } from "../cluster.ts";
import { startMeter } from "../meter.ts";
import { type FigureName, Measurement } from "../results.ts";
import {
  measureInTurn,
  NS_PER_MS,
  prepare,
  rate,
  ROW_SIZE,
  type Run,
  type Scenario,
  warmUp,
  work,
  writeBare,
  writeReplicated,
} from "../run.ts";
import type { System } from "../systems.ts";

const ROWS = 200_000;
const SINGLE_ROWS = 40_000;
const QUICK_ROWS = 60_000;
const QUICK_SINGLE_ROWS = 12_000;
const LAG_ROWS = 1_000_000;
const BYTES_PER_MB = 1e6;

interface Variant {
  readonly name: string;
  readonly rows: number;
  readonly per: number;
  readonly kind?: Kind;
  readonly shuffled?: boolean;
  readonly size?: number;
  readonly shards?: number;
  readonly nodes?: number;
}

/** A scenario that measures each variant, all systems in turn in each round. */
function writes(name: string, about: string, variants: (run: Run) => readonly Variant[]): Scenario {
  return {
    name,
    about,
    measure: async (run) => {
      const all: Measurement[] = [];
      for (const variant of variants(run)) all.push(...await measureVariant(name, variant, run));
      return all;
    },
  };
}

function measureVariant(scenario: string, variant: Variant, run: Run): Promise<Measurement[]> {
  const resultOf = (system: System) => {
    const rows = Math.max(variant.per, Math.round(variant.rows * system.share));
    return new Measurement(scenario, system.name, variant.name, rows);
  };
  return measureInTurn(run, resultOf, async (result, system) => {
    await measureRound(result, system, variant);
    const last = (name: FigureName) => result.figures[name]?.at(-1) ?? NaN;
    return `bare ${last("bare").toFixed(0)} rows/s, captured ${percent(last("capturedRatio"))}, replicated ` +
      `${percent(last("replicatedRatio"))}, end to end ${last("endToEnd").toFixed(0)} rows/s, ` +
      `lag ${last("lag").toFixed(1)} ms`;
  });
}

/** Bare SQLite is measured right before each of the two it is compared with, since the machine's speed drifts. */
async function measureRound(result: Measurement, system: System, variant: Variant): Promise<void> {
  const { per, nodes, shards, kind = "insert", size = ROW_SIZE, shuffled = false } = variant;
  const all = work(variant.rows, { kind, size, shuffled });
  const what = { ...all, count: result.rows };
  const bare = async () => rateOf(await writeBare(all, per), all.count);
  const bareRate = await bare();
  await using cluster = await startCluster({ system, nodes, shards, prepare: (app) => prepare(app, all) });
  await warmUp(cluster);
  const stopMeter = await startMeter(cluster);
  const { written, visible, wal } = await writeReplicated(cluster, what, per, 1);
  await cluster.drained();
  result.costs.push(await stopMeter(what.count));
  const last = Math.max(...visible);
  const replicated = rateOf(written, what.count);
  const endToEnd = rate(what.count, last - written.started);
  await cluster.stopNodes();
  // The triggers are still there, and Marmot is not: the same kind of writes again, as many as bare SQLite gets.
  const again = { ...all, turn: 2, first: all.first + (kind === "insert" ? what.count : 0) };
  if (kind === "delete") await cluster.node(0).app.fill(what);
  const bareAgain = await bare();
  const captured = rateOf(await cluster.node(0).app.write(again, per, 2), again.count);
  result.add({ bare: bareAgain });
  result.add({
    bare: bareRate,
    captured,
    capturedRatio: captured / bareAgain,
    replicated,
    replicatedRatio: replicated / bareRate,
    endToEnd,
    endToEndRatio: endToEnd / bareRate,
    lag: (last - written.ended) / NS_PER_MS,
    commitP50: written.commits.p50 / NS_PER_MS,
    commitP99: written.commits.p99 / NS_PER_MS,
    commitMax: written.commits.max / NS_PER_MS,
    waitP99: written.waits.p99 / NS_PER_MS,
    waitMax: written.waits.max / NS_PER_MS,
    wal: wal / BYTES_PER_MB,
  });
}

function rateOf({ started, ended }: Written, rows: number): number {
  return rate(rows, ended - started);
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}

function byTransaction({ quick }: Run): Variant[] {
  return [
    { name: "transactions of 100", rows: quick ? QUICK_ROWS : ROWS, per: 100 },
    { name: "single rows", rows: quick ? QUICK_SINGLE_ROWS : SINGLE_ROWS, per: 1 },
  ];
}

/** In key order, and in random order, where a transaction of 100 rows writes 100 pages. */
function byOrder(run: Run, kind: Kind): Variant[] {
  const [hundred, single] = byTransaction(run).map((variant) => ({ ...variant, kind }));
  if (hundred === undefined || single === undefined) return [];
  return [hundred, { ...hundred, name: `${hundred.name}, random order`, shuffled: true }, single];
}

export const WRITES: readonly Scenario[] = [
  writes("insert", "New rows of about 90 bytes, two nodes.", (run) => byTransaction(run)),
  writes("update", "Two of five columns of every row.", (run) => byOrder(run, "update")),
  writes("delete", "Every row is deleted.", (run) => byOrder(run, "delete")),
  writes("size", "Larger rows, half text and half incompressible.", ({ quick }) => [
    { name: "1 KB, transactions of 100", rows: quick ? 10_000 : 50_000, per: 100, size: 1_000 },
    { name: "1 KB, single rows", rows: quick ? 3_000 : 20_000, per: 1, size: 1_000 },
    { name: "100 KB, transactions of 10", rows: quick ? 200 : 1_000, per: 10, size: 100_000 },
    { name: "100 KB, single rows", rows: quick ? 200 : 1_000, per: 1, size: 100_000 },
  ]),
  writes("shards", "The rows of one table spread over several streams.", ({ quick }) =>
    [1, 4, 16].flatMap((shards) => [
      { name: `${shards} shards, transactions of 100`, rows: quick ? QUICK_ROWS : ROWS, per: 100, shards },
      { name: `${shards} shards, single rows`, rows: quick ? QUICK_SINGLE_ROWS : SINGLE_ROWS, per: 1, shards },
    ])),
  writes(
    "nodes",
    "One writer, and all others on the same machine and broker.",
    ({ quick, large }) =>
      (large ? [2, 5, 20] : [2, 5]).map((nodes) => (
        { name: `${nodes} nodes`, rows: quick ? QUICK_ROWS : ROWS, per: 100, nodes }
      )),
  ),
  writes("lag", "What is left to do when a writer at full speed stops.", ({ quick }) => [
    { name: "transactions of 100", rows: quick ? QUICK_ROWS : LAG_ROWS, per: 100 },
  ]),
];
