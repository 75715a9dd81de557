/** What a node says of itself: while it runs, and from outside. */
import { join } from "node:path";
import { commandProblem, findDatabase, isRunning, type NodePlace, readIfThere, writeWhole } from "./place.ts";
import type { Log } from "./runtime.ts";
import { openDatabase } from "./sqlite/connection.ts";
import { hasOwnTables, readFact } from "./sqlite/own_tables.ts";
import { type ParkedTable, readParked } from "./sqlite/parked.ts";
import { readCursors } from "./sqlite/cursors.ts";
import { countPending } from "./sqlite/change_log.ts";

export interface ShardStatus {
  readonly stream: string;
  /** last applied stream sequence */
  readonly cursor: number;
  /** last sequence of the stream, as far as this node knows: it asks each minute */
  readonly end: number;
  readonly publisher: string;
  /** why the shard does not go on */
  readonly stopped: string | null;
}

/** As the running node knows it; also written to status.json beside the database. */
export interface NodeStatus {
  readonly id: string;
  readonly pid: number;
  readonly connected: boolean;
  readonly broker: string | null;
  readonly shards: readonly ShardStatus[];
  /** why the node as a whole does not go on, such as a full disk */
  readonly stops: readonly string[];
  readonly parked: readonly ParkedTable[];
  readonly excluded: readonly { readonly name: string; readonly reason: string }[];
}

export interface StatusReport {
  readonly db: string;
  readonly running: boolean;
  /** undefined: this database was never replicated */
  readonly node: string | undefined;
  readonly connected: boolean;
  readonly broker: string | null;
  readonly shards: readonly ShardStatus[];
  /** entries that have not come back through the stream, by table */
  readonly pending: readonly { readonly table: string; readonly entries: number }[];
  readonly parked: readonly ParkedTable[];
  readonly stops: readonly string[];
  readonly excluded: readonly { readonly name: string; readonly reason: string }[];
}

/** How long another process's lock is waited for, ms */
const BUSY_TIMEOUT_MS = 5_000;

export function statusFile({ folder }: NodePlace): string {
  return join(folder, "status.json");
}

/** status.json is written at most this often, ms */
const WRITE_MS = 500;

/** Writes what a running node says of itself, when it changed. */
export class StatusFile {
  private after = 0;
  private text = "";
  private failing = false;

  constructor(private readonly place: NodePlace, private readonly log: Log) {}

  /** Never throws: a full disk must not keep the node from what it can still do. Tried again until it is written. */
  write(now: number, status: () => NodeStatus): void {
    if (now < this.after) return;
    const text = `${JSON.stringify(status())}\n`;
    if (text === this.text) return;
    this.after = now + WRITE_MS;
    try {
      writeWhole(statusFile(this.place), text);
      this.text = text;
      this.failing = false;
    } catch (error) {
      if (!this.failing) this.log.warn("the status can't be written for now", { error: String(error) });
      this.failing = true;
    }
  }
}

/**
 * Reads the database and, while a Marmot runs, what it last wrote.
 * @throws MarmotError when the database is not there, can't be read, or is locked
 */
export function readStatus(dbPath: string): Promise<StatusReport> {
  const place = findDatabase(dbPath, false);
  const running = isRunning(place);
  const last = lastStatus(place);
  const held = readHeld(place.dbPath);
  return Promise.resolve({
    db: place.dbPath,
    running,
    node: held.node,
    connected: running && (last?.connected ?? false),
    broker: last?.broker ?? null,
    shards: last === undefined
      ? held.cursors.map(unknownShard)
      : last.shards.map((shard, i) => withCursor(shard, held.cursors[i])),
    pending: held.pending,
    parked: held.parked,
    stops: last?.stops ?? [],
    excluded: last?.excluded ?? [],
  });
}

/** @returns undefined when there is none, or a power cut left half of it: what counts is in the database */
function lastStatus(place: NodePlace): NodeStatus | undefined {
  const written = readIfThere(statusFile(place));
  if (written === undefined) return undefined;
  try {
    return JSON.parse(written) as NodeStatus;
  } catch {
    return undefined;
  }
}

type Held = Pick<StatusReport, "node" | "pending" | "parked"> & { readonly cursors: readonly number[] };

/** What the database itself says. */
function readHeld(path: string): Held {
  try {
    const db = openDatabase(path, { readOnly: true, busyTimeoutMs: BUSY_TIMEOUT_MS });
    try {
      if (!hasOwnTables(db)) return { node: undefined, cursors: [], pending: [], parked: [] };
      return { node: readFact(db, "id"), cursors: readCursors(db), pending: countPending(db), parked: readParked(db) };
    } finally {
      db.close();
    }
  } catch (error) {
    throw commandProblem(path, error);
  }
}

function unknownShard(cursor: number): ShardStatus {
  return { stream: "", cursor, end: cursor, publisher: "stopped", stopped: null };
}

function withCursor(shard: ShardStatus, cursor: number | undefined): ShardStatus {
  const at = cursor ?? shard.cursor;
  return { ...shard, cursor: at, end: Math.max(at, shard.end) };
}

export function formatStatus(report: StatusReport): string {
  const lines = [
    `database   ${report.db}`,
    `node       ${report.node ?? "never replicated"}`,
    `marmot     ${report.running ? "running" : "not running"}`,
    `broker     ${report.broker ?? "unknown"}${report.running ? (report.connected ? " (connected)" : " (away)") : ""}`,
  ];
  for (const { stream, cursor, end, publisher, stopped } of report.shards) {
    lines.push(
      `shard      ${stream} cursor ${cursor} of ${end}, publisher ${publisher}${
        stopped === null ? "" : `; stopped: ${stopped}`
      }`,
    );
  }
  const total = report.pending.reduce((sum, { entries }) => sum + entries, 0);
  lines.push(
    `pending    ${total}${
      total === 0 ? "" : ` (${report.pending.map(({ table, entries }) => `${table} ${entries}`).join(", ")})`
    }`,
  );
  for (const { table, changes, reason } of report.parked) {
    lines.push(`parked     ${table}: ${changes} changes: ${reason}`);
  }
  for (const reason of report.stops) lines.push(`stopped    ${reason}`);
  for (const { name, reason } of report.excluded) lines.push(`excluded   ${name}: ${reason}`);
  return lines.join("\n");
}
