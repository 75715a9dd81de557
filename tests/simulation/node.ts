/** A simulated node: its file, its application, and its Marmot process while there is one. */
import { mkdirSync } from "node:fs";
import type { LogFields } from "../../src/runtime.ts";
import type { StatementFault } from "./application.ts";
import { Application } from "./application.ts";
import { ChangingLaw } from "./changing_law.ts";
import type { Position } from "./cluster_broker.ts";
import { NodeFile } from "./file.ts";
import type { Weather } from "./link.ts";
import { SimulatedProcess, type Speed } from "./process.ts";
import { Violation } from "./violation.ts";
import type { World } from "./world.ts";

export interface Copy {
  readonly path: string;
  readonly ahead: ReadonlySet<string>;
  readonly changes: number;
  readonly rebuilt: string | undefined;
}

export class SimulatedNode {
  readonly file: NodeFile;
  readonly application: Application;
  process: SimulatedProcess | undefined;
  id = "";
  readonly copies: Copy[] = [];
  /** stamps of entries that must be accepted in the end */
  must = new Set<string>();
  /** was made by clone: stamps of its source's entries that it holds ahead of its cursor */
  ahead: ReadonlySet<string> = new Set();
  /** by shard, where its source stood when it was handed out: those messages must be there */
  aheadTo = new Map<number, Position>();
  /** no network */
  away = false;
  /** Marmot or the application committed since it was checked */
  changed = false;
  wentBack = false;
  /** for clones of this file that wait */
  endClones = new AbortController();
  /** entries that Marmot's own connection may log */
  private inside = false;
  private installed = false;
  readonly weather: Weather;
  readonly held: (() => void)[] = [];
  readonly speed: Speed;
  /** how many of the later changes of the schema it has */
  changes = 0;
  /** what the law says of tables that change, where there are some */
  readonly changing: ChangingLaw | undefined;
  /** a table without Marmot's triggers, for now */
  rebuilt: string | undefined;
  /** a copy of another node's file, started as it is: it must not come to life */
  isTwin = false;
  /** what is in the way of the next statements */
  fault: StatementFault | undefined;

  constructor(readonly world: World, readonly name: string, readonly path: string) {
    const { random, setting } = world;
    this.file = new NodeFile({
      path,
      wal: setting.wal,
      tables: setting.tables,
      shards: world.shards,
      law: world.law,
      pragmas: setting.pragmas,
      changing: setting.migrations !== undefined,
      stamp: () => world.stamp(),
    });
    const { migrations } = setting;
    if (migrations !== undefined) this.changing = new ChangingLaw(migrations, world.law, world.entries);
    this.application = new Application(this);
    this.weather = { ...setting.weather };
    this.speed = { statement: random.pick(setting.speeds) };
    mkdirSync(`${path}-marmot`, { recursive: true });
  }

  /** Marmot has put its triggers into the file. */
  get isInstalled(): boolean {
    return this.installed ||= this.file.has("__marmot__cursors");
  }

  get reachesBroker(): boolean {
    return !this.away && this.world.broker.up;
  }

  start(): void {
    const { random, setting, counters } = this.world;
    counters.add("starts");
    this.process = new SimulatedProcess({
      node: this,
      weather: this.weather,
      speed: this.speed,
      maxPayload: setting.maxPayload,
      frameBytes: random.pick(setting.frameBytes),
    });
  }

  /** @returns the process that lives, if one does */
  get alive(): SimulatedProcess | undefined {
    if (this.process?.dead) this.process = undefined;
    return this.process;
  }

  kill(): void {
    if (this.alive === undefined) return;
    this.world.counters.add("kills");
    this.process!.kill();
    this.process = undefined;
  }

  /** Between Marmot's statements others write, hold locks, and disks are full. */
  beforeStatement(sql: string, executes: boolean): void {
    if (this.inside || this.world.ending || !this.world.begun) return;
    const { random, setting, counters } = this.world;
    // not while it only looks whether there is anything to do, or the two would keep each other going for ever
    if (executes && sql !== "PRAGMA main.data_version" && random.next() < setting.interleaved) {
      this.inside = true;
      try {
        const migrates = setting.migrations !== undefined && random.below(4) === 0 && this.installed;
        const sql = migrates ? setting.later[this.changes] : undefined;
        if (sql === undefined) this.application.write();
        else this.application.change(sql);
      } finally {
        this.inside = false;
      }
    }
    const trouble = this.fault;
    if (trouble === undefined || !hits(trouble, sql, executes) || trouble.after-- > 0) return;
    this.fault = undefined;
    counters.add(trouble.message.includes("full") ? "disks full" : "locks in the way");
    throw new Error(trouble.message);
  }

  marmotCommitted(): void {
    this.changed = true;
    this.alive?.fileChanged(true);
  }

  /** Stamps that Marmot's connection gives: only where its own statements log something (I5). */
  marmotStamp(sql: string): bigint {
    const stamp = this.world.stamp();
    if (sql.startsWith(`INSERT INTO "__marmot__`)) this.world.entries.expect(String(stamp));
    else this.world.violated(new Violation(`I5: ${this.name} captured what Marmot wrote: ${sql}`));
    return stamp;
  }

  said(level: string, message: string, fields: LogFields): void {
    this.world.trace(
      this.name,
      () => `${level} ${message} ${JSON.stringify(fields, (_, v) => typeof v === "bigint" ? `${v}` : v)}`,
    );
    if (level === "error" && fields.problem === "other") {
      this.world.violated(new Violation(`${this.name} ${message}: ${fields.reason} ${fields.stack}`));
    }
  }

  close(): void {
    this.process?.kill();
    this.file.close();
  }
}

/** An application that holds a lock is in the way of everything but the end of a transaction that failed. */
function hits({ kind }: StatementFault, sql: string, executes: boolean): boolean {
  if (kind === "commit") return sql === "COMMIT" && executes;
  if (kind === "create") return executes && sql.startsWith("CREATE");
  if (kind === "write") return executes && /^(INSERT|UPDATE|DELETE|CREATE)/.test(sql);
  return sql !== "ROLLBACK" && sql !== "COMMIT" && (executes || !sql.startsWith("PRAGMA"));
}
