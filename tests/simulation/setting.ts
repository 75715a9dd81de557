/** What a history is made of: drawn once from its seed. */
import type { Random } from "../support/random.ts";
import type { Weather } from "./link.ts";
import { AUDIT, drawTable, LEDGER, PAIR, type TableSpec } from "./tables.ts";

export interface Setting {
  readonly nodes: number;
  readonly shards: number;
  readonly steps: number;
  readonly wal: boolean;
  readonly foreignKeys: boolean;
  readonly tables: readonly TableSpec[];
  /** what every node's file begins with */
  readonly sql: readonly string[];
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
const CALM: Weather = { lost: 0, answerLost: 0, doubled: 0, late: 0, latency: 1 };

export function drawSetting(random: Random): Setting {
  const shards = random.pick([1, 1, 1, 2, 2, 3, 8]);
  const tables = [
    ...Array.from({ length: 1 + random.below(3) }, (_, i) => drawTable(`t${i + 1}`, random)),
    PAIR,
    LEDGER,
  ];
  const trouble = random.pick([0, 0, 0.02, 0.1]);
  const weather = { ...CALM, lost: trouble, answerLost: trouble, doubled: trouble, late: trouble / 2 };
  const travels = random.below(3) === 0 ? 1 : 0;
  return {
    nodes: random.pick([2, 2, 2, 3, 3, 3, 4, 5, 7]),
    shards,
    steps: 20 + random.below(60),
    wal: random.below(4) === 0,
    foreignKeys: false,
    tables,
    sql: [...tables.flatMap(({ sql }) => sql), ...AUDIT],
    weather: { ...weather, latency: random.pick([0.5, 5, 60]) },
    speeds: random.below(4) === 0 ? [0.01, 2] : [0.01],
    maxPayload: random.pick([HEADER_BYTES + 70, HEADER_BYTES + 300, 1e6, 1e6]),
    frameBytes: [1, 150, 1900, 1900],
    interleaved: random.pick([0, 0.003, 0.01]),
    weights: {
      write: 60,
      hold: 3,
      kill: random.pick([0, 3, 10]),
      fuse: random.pick([0, 3, 10]),
      start: 15,
      stop: 2,
      part: 4,
      mend: 8,
      brokerRestart: random.pick([0, 2]),
      busy: 2,
      full: random.pick([0, 2]),
      jump: 1,
      save: travels * 3,
      travel: travels * 3,
      clone: random.pick([0, 1]),
    },
  };
}
