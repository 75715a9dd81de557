/** Nodes as a release left them: two databases and a stream store, packed, and what has to come of them. */
import { mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { App, type Facts } from "./app.ts";
import { Cluster, TestNode } from "./cluster.ts";
import { freePort, natsServerFlags } from "./nats.ts";
import { runProgram } from "./process.ts";
import { PROJECT } from "./runtime.ts";
import { tempFolder } from "./tmp.ts";

export const FIXTURES = join(PROJECT, "tests", "fixtures");
export const ARCHIVE = "nodes.tar.gz";
export const EXPECTED = "expected.json";

/** Streams keep their messages for as long as a fixture may live: 10 years, the most there is. */
export const FIXTURE_FLAGS = ["--shards", "2", "--retention-age", "3650d", "--retention-bytes", "8GiB"];
/** A table that only node b had: what it wrote there is parked at node a. */
export const LATER = "CREATE TABLE later(id TEXT PRIMARY KEY, body TEXT)";

export interface Expected {
  /** the version that wrote it */
  readonly marmot: string;
  /** nodes a and b as they were left */
  readonly left: readonly Pick<Facts, "pending" | "cursors" | "parked">[];
  /** rows of every table once both have caught up, and a has the table that it lacked */
  readonly rows: Readonly<Record<string, readonly string[]>>;
}

/** Versions that there is a fixture of. */
export async function fixtureVersions(): Promise<string[]> {
  return (await readdir(FIXTURES)).sort();
}

export async function readExpected(version: string): Promise<Expected> {
  return JSON.parse(await readFile(join(FIXTURES, version, EXPECTED), "utf8"));
}

/** Both nodes of a fixture, unpacked, with no Marmot running. The first has the broker. */
export async function unpackFixture(version: string): Promise<Cluster> {
  const folder = await tempFolder();
  await mkdir(folder.path, { recursive: true });
  const { code, stderr } = await runProgram(["tar", "-xzf", join(FIXTURES, version, ARCHIVE), "-C", folder.path]);
  if (code !== 0) throw new Error(`Cannot unpack the fixture of ${version}: ${stderr}`);
  const port = await freePort();
  const brokers = [
    ["--listen", `127.0.0.1:${port}`, ...await natsServerFlags()],
    ["--nats-url", `nats://127.0.0.1:${port}`, "--nats-credentials", folder.file("a.db-marmot", "credentials")],
  ];
  const nodes: TestNode[] = [];
  for (const [place, broker] of brokers.entries()) {
    const name = "ab".charAt(place);
    const path = folder.file(`${name}.db`);
    nodes.push(new TestNode(name, path, await App.start(path), [...broker, ...FIXTURE_FLAGS], false));
  }
  return new Cluster(nodes, undefined, folder);
}

/** How far a node is, without what is not told apart by it. */
export async function leftFacts({ app }: TestNode): Promise<Pick<Facts, "pending" | "cursors" | "parked">> {
  const { pending, cursors, parked } = await app.facts();
  return { pending, cursors, parked };
}

/** Rows of every table of a node, each as one line. */
export async function allRows({ app }: TestNode): Promise<Record<string, string[]>> {
  const rows: Record<string, string[]> = {};
  for (const table of Object.keys(await app.dump()).sort()) rows[table] = await app.rows(table);
  return rows;
}

/** Starts both, gives a the table that it lacked, and waits until they are the same. */
export async function takeUp(cluster: Cluster): Promise<void> {
  for (const node of cluster.nodes) await node.start();
  await cluster.a.app.script(LATER);
  await cluster.converged();
}
