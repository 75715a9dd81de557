/** Nodes of a test: real databases, a real nats-server, a Marmot and an application for each, all processes of their own. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { App, type Facts } from "./app.ts";
import { freePort, type NatsServer, natsServerFlags, startNatsServer } from "./nats.ts";
import { type Program, startProgram } from "./process.ts";
import { marmotCommand } from "./runtime.ts";
import { haveProgram } from "./skip.ts";
import { type TempFolder, tempFolder } from "./tmp.ts";

/** tables that begin so are each node's own */
const LOCAL = "local_";
const POLL_MS = 20;
/** Nothing is promised of it: a machine that does much else may need most of it for the triggers of 500 tables. */
const WAIT_TIMEOUT_MS = 100_000;
const LOG_SHOWN_CHARS = 6_000;
const ROWS_SHOWN = 3;
const ROW_SHOWN_CHARS = 300;

export interface ClusterOptions {
  /** default: 2 */
  readonly nodes?: number;
  /** "embedded": the first node's Marmot runs the broker. Default: a server beside them */
  readonly broker?: "external" | "embedded";
  /** more flags for each Marmot */
  readonly args?: readonly string[];
  /** more configuration of the server beside them */
  readonly serverConfig?: string;
  /** SQL that makes each database, before Marmot starts. Default: WAL mode and nothing else */
  readonly prepare?: string | ((place: number) => string);
  /** the applications register functions and a collation (see App.start) */
  readonly functions?: boolean;
}

/** One database and what runs on it. */
export class TestNode {
  marmot: Program | undefined;
  /** what earlier Marmots of this node printed */
  #formerly = "";

  constructor(
    readonly name: string,
    readonly path: string,
    public app: App,
    readonly args: readonly string[],
    readonly functions: boolean,
  ) {}

  /** Marmot's folder beside the database */
  get folder(): string {
    return `${this.path}-marmot`;
  }

  /** everything its Marmots have printed */
  get log(): string {
    return this.#formerly + (this.marmot?.output ?? "");
  }

  /** Starts Marmot and waits until the database is set up. Rejects, with its output, when it ends. */
  async start(...more: string[]): Promise<void> {
    const marmot = await startProgram([...marmotCommand(), "--db-path", this.path, ...this.args, ...more]);
    this.marmot = marmot;
    const ended = marmot.exited.then((exit) => Promise.reject(new Error(`Marmot ended: ${JSON.stringify(exit)}`)));
    ended.catch(() => {/* told to whoever waits now, and by running() later */});
    const ready = until(`${this.name} is set up`, async () => (await this.app.facts()).ready, { nodes: [this] });
    await Promise.race([ready, ended]).catch((error) => {
      throw new Error(`${error instanceof Error ? error.message : error}\n${this.log}`);
    });
  }

  /** One more application on this database, for the caller to end. */
  anotherApp(): Promise<App> {
    return App.start(this.path, { functions: this.functions });
  }

  /** Ends the application without a farewell, does `meanwhile`, and starts it again. */
  async restartApp(meanwhile: () => Promise<void> = () => Promise.resolve()): Promise<void> {
    await this.app[Symbol.asyncDispose]();
    await meanwhile();
    this.app = await this.anotherApp();
  }

  /** Freezes Marmot, or lets it go on. */
  freeze(): void {
    this.marmot?.freeze();
  }

  thaw(): void {
    this.marmot?.signal("SIGCONT");
  }

  /** SIGTERM. @returns its exit code */
  async stop(): Promise<number | null> {
    return (await this.#end("stop"))?.code ?? null;
  }

  /** SIGKILL */
  async kill(): Promise<void> {
    await this.#end("kill");
  }

  /** Throws, with its output, when Marmot has ended by itself. */
  async running(): Promise<void> {
    if (this.marmot === undefined) return;
    const exit = await Promise.race([this.marmot.exited, Promise.resolve()]);
    if (exit !== undefined) assert.fail(`${this.name}: Marmot ended with ${JSON.stringify(exit)}\n${shown(this.log)}`);
  }

  async #end(how: "stop" | "kill") {
    const marmot = this.marmot;
    this.marmot = undefined;
    const exit = await marmot?.[how]();
    this.#formerly += marmot?.output ?? "";
    return exit;
  }
}

export interface ConvergedOptions {
  /** default: all */
  readonly nodes?: readonly TestNode[];
  /** tables that may differ, besides those named local_… */
  readonly except?: readonly string[];
  /** default: 100 s */
  readonly timeoutMs?: number;
}

export class Cluster implements AsyncDisposable {
  constructor(
    readonly nodes: TestNode[],
    /** the server beside them; with an embedded broker there is none */
    readonly server: NatsServer | undefined,
    readonly folder: TempFolder,
  ) {}

  get a(): TestNode {
    return this.node(0);
  }

  get b(): TestNode {
    return this.node(1);
  }

  get c(): TestNode {
    return this.node(2);
  }

  node(place: number): TestNode {
    const node = this.nodes[place];
    assert.ok(node !== undefined, `no node ${place}`);
    return node;
  }

  /** Changes the schema on all nodes, and waits until Marmot captures every new table, besides those named. */
  readonly schema = async (
    sql: string,
    { uncaptured = [] }: { uncaptured?: readonly string[] } = {},
  ): Promise<void> => {
    const tables = async (node: TestNode) => Object.keys(await node.app.dump());
    await Promise.all(this.nodes.map(async (node) => {
      const before = new Set(await tables(node));
      await node.app.script(sql);
      const made = (await tables(node)).filter((table) => !before.has(table) && !uncaptured.includes(table));
      if (node.marmot !== undefined) await this.captured(made, [node]);
    }));
  };

  /** Waits until Marmot captures these tables. */
  readonly captured = async (tables: readonly string[], nodes: readonly TestNode[] = this.nodes): Promise<void> => {
    const check = async (node: TestNode) => {
      const captured = new Set((await node.app.facts()).captured);
      return tables.every((table) => captured.has(table));
    };
    const all = async () => (await Promise.all(nodes.map(check))).every((done) => done);
    await until(`${tables.join(", ")} is captured`, all, { nodes });
  };

  /** Settles all, then runs `body` while no Marmot does anything: what the nodes write there, they write at once. */
  readonly apart = async (body: () => Promise<void>): Promise<void> => {
    await this.settled();
    for (const node of this.nodes) node.freeze();
    try {
      await body();
    } finally {
      for (const node of this.nodes) node.thaw();
    }
  };

  /** One more node, on a database that is there, with the flags of the last one. Its Marmot is not started. */
  async join(name: string): Promise<TestNode> {
    const { args, functions } = this.node(this.nodes.length - 1);
    const path = this.folder.file(`${name}.db`);
    const node = new TestNode(name, path, await App.start(path, { functions }), args, functions);
    this.nodes.push(node);
    return node;
  }

  /** Waits until everything written so far was published and applied on all nodes. */
  readonly settled = async (options: ConvergedOptions = {}): Promise<void> => {
    const { nodes = this.nodes, timeoutMs = WAIT_TIMEOUT_MS } = options;
    const all = async () => settledFacts(await Promise.all(nodes.map((node) => node.app.facts())));
    await until("all nodes have published and applied everything", all, { nodes, timeoutMs });
  };

  /** Waits until all is settled, and compares all tables by storage class and bytes. Shows the first rows that differ. */
  readonly converged = async (options: ConvergedOptions = {}): Promise<void> => {
    const { nodes = this.nodes, except = [] } = options;
    await this.settled(options);
    const dumps = await Promise.all(nodes.map((node) => node.app.dump()));
    for (const dump of dumps) {
      for (const table of Object.keys(dump)) if (table.startsWith(LOCAL) || except.includes(table)) delete dump[table];
    }
    for (const [place, dump] of dumps.entries()) {
      if (JSON.stringify(dump) === JSON.stringify(dumps[0])) continue;
      assert.fail(await differences([nodes[0]!, nodes[place]!], [dumps[0]!, dump]));
    }
  };

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.kill()));
    await Promise.all(this.nodes.map((node) => node.app[Symbol.asyncDispose]()));
    await this.server?.[Symbol.asyncDispose]();
    await this.folder[Symbol.asyncDispose]();
  }
}

/** Databases, applications and Marmots, all running. */
export async function startCluster(options: ClusterOptions = {}): Promise<Cluster> {
  const { nodes: count = 2, args = [] } = options;
  const folder = await tempFolder();
  const server = options.broker === "embedded" ? undefined : await startNatsServer({ config: options.serverConfig });
  const port = server?.port ?? await freePort();
  const nodes: TestNode[] = [];
  for (let place = 0; place < count; place++) {
    const name = "abcdefgh".charAt(place);
    const path = folder.file(`${name}.db`);
    const functions = options.functions ?? false;
    const app = await App.start(path, { functions });
    const { prepare = "PRAGMA journal_mode = WAL" } = options;
    await app.script(typeof prepare === "string" ? prepare : prepare(place));
    const broker = server === undefined ? await embeddedFlags(place, port, folder) : ["--nats-url", server.url];
    nodes.push(new TestNode(name, path, app, [...broker, ...args], functions));
  }
  const cluster = new Cluster(nodes, server, folder);
  try {
    // One after the other: the first may be the broker of the others.
    for (const node of nodes) await node.start();
  } catch (error) {
    await cluster[Symbol.asyncDispose]();
    throw error;
  }
  return cluster;
}

async function embeddedFlags(place: number, port: number, folder: TempFolder): Promise<string[]> {
  if (place === 0) return ["--listen", `127.0.0.1:${port}`, ...await natsServerFlags()];
  return ["--nats-url", `nats://127.0.0.1:${port}`, "--nats-credentials", folder.file("a.db-marmot", "credentials")];
}

type ClusterTest = (name: string, body: (cluster: Cluster) => Promise<void>) => void;

/** Tests that share one cluster, which starts with the first of them; one that fails leaves a new one to the next. */
export function clusterTests(options: ClusterOptions = {}): ClusterTest {
  let shared: Promise<Cluster> | undefined;
  const end = async () => {
    const ending = shared;
    shared = undefined;
    await (await ending)?.[Symbol.asyncDispose]();
  };
  after(end);
  return (name, body) => {
    test(name, async (context) => {
      if (!await haveProgram(context, ["python3", "--version"])) return;
      shared ??= startCluster(options);
      try {
        const cluster = await shared;
        await body(cluster);
        for (const node of cluster.nodes) await node.running();
      } catch (error) {
        await end().catch(() => {/* the test's own error says more */});
        throw error;
      }
    });
  };
}

/** Tests that each have a cluster of their own. */
export function ownClusterTests(options: ClusterOptions = {}): ClusterTest {
  return (name, body) => {
    test(name, async (context) => {
      if (!await haveProgram(context, ["python3", "--version"])) return;
      await using cluster = await startCluster(options);
      await body(cluster);
      for (const node of cluster.nodes) await node.running();
    });
  };
}

/** Polls until `check` says so. Rejects after the time, or when the Marmot of one of `nodes` ends, with what they logged. */
export async function until(
  promise: string,
  check: () => Promise<boolean>,
  { nodes = [], timeoutMs = WAIT_TIMEOUT_MS }: { nodes?: readonly TestNode[]; timeoutMs?: number } = {},
): Promise<void> {
  const started = Date.now();
  while (!await check()) {
    for (const node of nodes) await node.running();
    if (Date.now() - started > timeoutMs) {
      const facts = await Promise.all(nodes.map(async ({ app }) => JSON.stringify(await app.facts())));
      const logs = nodes.map((node, place) => `--- ${node.name}: ${facts[place]}\n${shown(node.log)}`);
      assert.fail(`not within ${timeoutMs} ms: ${promise}\n${logs.join("\n")}`);
    }
    await sleep(POLL_MS);
  }
}

function settledFacts(all: readonly Facts[]): boolean {
  const cursors = JSON.stringify(all[0]?.cursors);
  return all.every((facts) => {
    const { ready, pending, parked } = facts;
    return ready && Object.keys(pending).length === 0 && parked === 0 && JSON.stringify(facts.cursors) === cursors;
  });
}

async function differences(
  nodes: readonly [TestNode, TestNode],
  dumps: readonly [Record<string, string>, Record<string, string>],
): Promise<string> {
  const [one, other] = nodes;
  const lines = [`${one.name} and ${other.name} differ`];
  const tables = new Set(dumps.flatMap((dump) => Object.keys(dump)));
  for (const table of tables) {
    const [here, there] = [dumps[0][table], dumps[1][table]];
    if (here === there) continue;
    lines.push(`table ${table}: ${here ?? "missing"} in ${one.name}, ${there ?? "missing"} in ${other.name}`);
    if (here === undefined || there === undefined) continue;
    const [rows, others] = [await one.app.rows(table), await other.app.rows(table)];
    lines.push(...onlyIn(one.name, rows, others), ...onlyIn(other.name, others, rows));
  }
  for (const node of nodes) lines.push(`--- ${node.name}`, shown(node.log));
  return lines.join("\n");
}

function onlyIn(name: string, rows: readonly string[], others: readonly string[]): string[] {
  const known = new Set(others);
  const only = rows.filter((row) => !known.has(row)).slice(0, ROWS_SHOWN);
  return only.map((row) => `  only in ${name}: ${row.slice(0, ROW_SHOWN_CHARS)}`);
}

function shown(log: string): string {
  return log.length > LOG_SHOWN_CHARS ? `…${log.slice(-LOG_SHOWN_CHARS)}` : log;
}
