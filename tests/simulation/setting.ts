/** What a history is made of: drawn once from its seed. */
import type { Random } from "../support/random.ts";
import type { Weather } from "./link.ts";
import { drawTriggerSchema, type TriggerSchema } from "./trigger_tables.ts";
import { drawMigrations, type Migrations } from "./migrations.ts";
import { AUDIT, drawTable, LEDGER, PAIR, type TableSpec } from "./tables.ts";

export type Kind = "rows" | "stream" | "triggers" | "schema";

export interface Setting {
  readonly kind: Kind;
  readonly nodes: number;
  readonly shards: number;
  readonly steps: number;
  readonly wal: boolean;
  /** of the application's connections */
  readonly pragmas: string;
  readonly tables: readonly TableSpec[];
  /** what every node's file begins with */
  readonly sql: readonly string[];
  /** changes of the schema, on each node at a time of its own */
  readonly later: readonly string[];
  /** where they change tables: those are not in `tables`, and have a law of their own */
  readonly migrations: Migrations | undefined;
  readonly weather: Weather;
  /** ms a statement takes, drawn for each node */
  readonly speeds: readonly number[];
  readonly maxPayload: number;
  readonly frameBytes: readonly (number | undefined)[];
  /** probability that the application writes before one of Marmot's statements */
  readonly interleaved: number;
  /** weights of what happens */
  readonly weights: Readonly<Record<string, number>>;
}

const HEADER_BYTES = 62;
type StreamLoss = "lost" | "purged" | "whole";
const STREAMS: readonly StreamLoss[] = ["lost", "purged"];
/** How often each is drawn, in 13 */
const SHARES: Readonly<Record<Kind, number>> = { rows: 6, stream: 2, triggers: 3, schema: 2 };
const KINDS = (Object.keys(SHARES) as Kind[]).flatMap((kind) => Array.from({ length: SHARES[kind] }, () => kind));

/** Weight of a change of the schema: migrations have to be made while something else happens, one after the other */
const CHANGES: Readonly<Record<Kind, number>> = { rows: 0, stream: 0, triggers: 5, schema: 25 };

export function drawSetting(random: Random): Setting {
  const kind = random.pick(KINDS);
  const trouble = random.pick([0, 0, 0.02, 0.1]);
  const latency = random.pick([0.5, 5, 60]);
  const shards = random.pick([1, 1, 1, 2, 2, 3, 8]);
  // rows that are spread can't become UNIQUE: the node says so, and publishes nothing
  const migrations = kind === "schema" ? drawMigrations(random, shards === 1) : undefined;
  const schema = kind === "triggers" ? drawTriggerSchema(random) : drawTables(random, migrations);
  const tables = [...schema.tables, PAIR, LEDGER];
  const recursive = kind === "triggers" &&
    (schema.tables.some(({ name }) => name === "notes") || random.below(4) === 0);
  return {
    kind,
    nodes: random.pick([2, 2, 2, 3, 3, 3, 4, 5, 7]),
    shards,
    steps: 15 + random.below(45),
    wal: random.below(4) > 0,
    pragmas: `PRAGMA foreign_keys = ${kind === "triggers" ? "ON" : "OFF"}; ` +
      `PRAGMA recursive_triggers = ${recursive ? "ON" : "OFF"}`,
    tables,
    sql: [...tables.flatMap(({ sql }) => sql), ...AUDIT, ...schema.before],
    later: schema.after,
    migrations,
    weather: { lost: trouble, answerLost: trouble, doubled: trouble, late: trouble / 2, latency },
    speeds: random.below(4) === 0 ? [0.01, 2] : [0.01],
    maxPayload: random.pick([HEADER_BYTES + 70, HEADER_BYTES + 300, 1e6, 1e6]),
    frameBytes: [1, 150, 1900, 1900],
    interleaved: random.pick([0, 0.003, 0.01]),
    weights: drawWeights(kind, random),
  };
}

function drawTables(random: Random, migrations: Migrations | undefined): TriggerSchema {
  if (migrations !== undefined) return { tables: [], before: migrations.sql, after: migrations.later };
  const tables = Array.from({ length: 1 + random.below(3) }, (_, i) => drawTable(`t${i + 1}`, random));
  return { tables, before: [], after: [] };
}

function drawWeights(kind: Kind, random: Random): Record<string, number> {
  const travels = random.below(3) === 0 ? 4 : 0;
  // purged or with a lost tail, not both: where the message at a cursor is purged, nothing is left to compare
  const drawn = kind === "stream" ? random.pick(STREAMS) : "whole";
  const kill = random.pick([0, 3, 10]);
  // of those with other schemas, every third: a node that is cut off has less to be compared
  const isOther = kill === 10 && (kind === "schema" || kind === "triggers");
  const stream: StreamLoss = isOther ? (travels > 0 ? "lost" : "purged") : drawn;
  return {
    write: 60,
    hold: 3,
    kill,
    fuse: random.pick([0, 3, 10]),
    start: 15,
    stop: 2,
    part: 4,
    mend: 8,
    brokerRestart: random.pick([0, 2]),
    loseTail: stream === "lost" ? 5 : 0,
    purge: stream === "purged" ? 4 : 0,
    busy: 2,
    full: random.pick([0, 2]),
    jump: 1,
    save: travels,
    travel: travels,
    // a source that goes back has lost what a clone may have of it
    clone: random.pick(travels > 0 ? [0, 3] : [0, 1]),
    twin: random.below(4) === 0 ? 1 : 0,
    change: CHANGES[kind],
  };
}
