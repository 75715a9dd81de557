/** Databases with their applications, the system's process beside each, and one broker, for one measurement. */
import { mkdir, stat } from "node:fs/promises";
import { type Program, startProgram } from "../../tests/support/process.ts";
import { type TempFolder, tempFolder } from "../../tests/support/tmp.ts";
import { Application } from "./application.ts";
import { type Broker, startBroker } from "./broker.ts";
import type { System } from "./systems.ts";

const READY_TIMEOUT_S = 120;
const READY_PAUSE_S = 0.02;
const DRAIN_TIMEOUT_S = 600;
const DRAIN_PAUSE_S = 0.005;

export const TABLE = "rows";
/** `mark` says how far a writer is, `probe` whether nodes hear each other. */
export const SCHEMA = `
  PRAGMA journal_mode = WAL;
  CREATE TABLE ${TABLE}(id INTEGER PRIMARY KEY, number INTEGER, name TEXT, data BLOB, price REAL);
  CREATE TABLE mark(id INTEGER PRIMARY KEY, at INTEGER);
  CREATE TABLE probe(id INTEGER PRIMARY KEY, node INTEGER);
`;

/** tables in SCHEMA */
export const TABLES = 3;

/** A database with its application; nothing replicates it. */
export class Database implements AsyncDisposable {
  protected constructor(readonly path: string, readonly app: Application) {}

  /** @param schema SQL; default: SCHEMA */
  static async make(path: string, schema = SCHEMA): Promise<Database> {
    const database = new Database(path, await Application.start(path));
    await database.app.script(schema);
    return database;
  }

  /** bytes of its write-ahead log */
  async walBytes(): Promise<number> {
    return await stat(`${this.path}-wal`).then((file) => file.size, () => 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.app[Symbol.asyncDispose]();
  }
}

/** A database that a system replicates. */
export class Node implements AsyncDisposable {
  process: Program | undefined;

  constructor(
    readonly database: Database,
    /** a second process, which only reads */
    readonly reader: Application,
    readonly name: string,
    private readonly command: readonly string[],
  ) {}

  get app(): Application {
    return this.database.app;
  }

  get pid(): number {
    return this.process?.pid ?? 0;
  }

  /** Starts the system's process. */
  async spawn(): Promise<Program> {
    return this.process = await startProgram(this.command);
  }

  /** Starts the system and waits until it captures so many tables; the reader has to be free. */
  async start(tables = TABLES): Promise<void> {
    const started = await this.spawn();
    const captures = `SELECT count(DISTINCT tbl_name) >= ${tables} FROM sqlite_schema WHERE type = 'trigger'`;
    const ended = started.exited.then(() => Promise.reject(new Error(`${this.name} ended:\n${started.output}`)));
    ended.catch(() => {/* told by whoever waits */});
    const ready = this.reader.equal(captures, [1], READY_PAUSE_S, READY_TIMEOUT_S);
    if (await Promise.race([ready, ended]) === null) throw new Error(`${this.name} is not ready:\n${started.output}`);
  }

  /** Waits until the change log of each table is empty. */
  async drained(): Promise<void> {
    for (const table of [TABLE, "mark", "probe"]) {
      const pending = `SELECT EXISTS (SELECT 1 FROM "__marmot__${table}_change_log")`;
      if (await this.reader.equal(pending, [0], DRAIN_PAUSE_S, DRAIN_TIMEOUT_S) === null) {
        throw new Error(`${this.name} does not publish what is in its change logs:\n${this.process?.output}`);
      }
    }
  }

  async stop(): Promise<void> {
    await this.process?.stop();
    this.process = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.process?.kill();
    await this.reader[Symbol.asyncDispose]();
    await this.database[Symbol.asyncDispose]();
  }
}

export interface ClusterOptions {
  readonly system: System;
  /** default: 2 */
  readonly nodes?: number;
  /** default: 1 */
  readonly shards?: number;
  /** default: SCHEMA */
  readonly schema?: string;
  /** run on each database before the system starts, so not replicated */
  readonly prepare?: (app: Application) => Promise<void>;
}

export class Cluster implements AsyncDisposable {
  #probes = 0;

  constructor(
    readonly system: System,
    readonly nodes: readonly Node[],
    readonly broker: Broker,
    readonly shards: number,
    private readonly folder: TempFolder,
  ) {}

  node(place: number): Node {
    const node = this.nodes[place];
    if (node === undefined) throw new RangeError(`no node ${place}`);
    return node;
  }

  /** Waits until each node's writes arrive at all others. */
  async connected(): Promise<void> {
    for (const from of this.nodes) {
      const id = ++this.#probes;
      await from.app.script(`INSERT INTO probe VALUES (${id}, 0)`);
      for (const to of this.nodes) {
        const arrived = `SELECT count(*) FROM probe WHERE id = ${id}`;
        if (await to.reader.equal(arrived, [1], READY_PAUSE_S, READY_TIMEOUT_S) !== null) continue;
        throw new Error(`a row of ${from.name} does not arrive at ${to.name}:\n${from.process?.output}`);
      }
    }
    await this.drained();
  }

  async drained(): Promise<void> {
    if (!this.system.drains) return;
    for (const node of this.nodes) if (node.process !== undefined) await node.drained();
  }

  /** Ends the system's processes, as asked; the databases and the broker stay. */
  async stopNodes(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.stop()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.nodes.map((node) => node[Symbol.asyncDispose]()));
    await this.broker.server[Symbol.asyncDispose]();
    await this.folder[Symbol.asyncDispose]();
  }
}

/** All databases, made but with nothing beside them yet. */
export async function makeCluster(options: ClusterOptions): Promise<Cluster> {
  const { system, nodes: count = 2, shards = 1, schema } = options;
  const folder = await tempFolder();
  await mkdir(folder.file("jetstream"));
  const broker = await startBroker(folder.file("jetstream"));
  const nodes: Node[] = [];
  const cluster = new Cluster(system, nodes, broker, shards, folder);
  try {
    for (let number = 1; number <= count; number++) {
      const name = String.fromCharCode("a".charCodeAt(0) + number - 1);
      const path = folder.file(`${name}.db`);
      const database = await Database.make(path, schema);
      await options.prepare?.(database.app);
      const command = await system.command({ database: path, number, brokerUrl: broker.server.url, shards });
      nodes.push(new Node(database, await Application.start(path), name, command));
    }
  } catch (error) {
    await cluster[Symbol.asyncDispose]();
    throw error;
  }
  return cluster;
}

/** All running, and hearing each other. @param tables how many the schema has */
export async function startCluster(options: ClusterOptions, tables = TABLES): Promise<Cluster> {
  const cluster = await makeCluster(options);
  try {
    for (const node of cluster.nodes) await node.start(tables);
    await cluster.connected();
  } catch (error) {
    await cluster[Symbol.asyncDispose]();
    throw error;
  }
  return cluster;
}
