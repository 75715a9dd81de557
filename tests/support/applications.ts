/** The applications that tests run on their nodes: installed once for this user, by scripts/applications.ts. */
import { execPath } from "node:process";
import { ensureDjango, ensureKnex, type Installed } from "../../scripts/applications.ts";
import { bunProgram } from "../../scripts/test_runtimes.ts";
import { App } from "./app.ts";
import { Cluster, TestNode } from "./cluster.ts";
import { startNatsServer } from "./nats.ts";
import { runProgram } from "./process.ts";
import { RUNTIME } from "./runtime.ts";
import { haveProgram, type SkippableTest, skipTest } from "./skip.ts";
import { type TempFolder, tempFolder } from "./tmp.ts";

/** an application may start slowly while other tests run, and waits up to 60 s for a lock */
const RUN_TIMEOUT_MS = 150_000;

export type { Installed };

/** Django and its Python; undefined when the test was skipped. */
export function haveDjango(context: SkippableTest): Promise<Installed | undefined> {
  return have(context, "Django", () => ensureDjango(() => {}));
}

/** Knex, better-sqlite3 and their Node; undefined when the test was skipped. */
export function haveKnex(context: SkippableTest): Promise<Installed | undefined> {
  return have(context, "Knex with better-sqlite3", () => ensureKnex(() => {}));
}

/** Bun, whatever runtime this test has; undefined when the test was skipped. */
export function haveBun(context: SkippableTest): Promise<Installed | undefined> {
  return have(context, "Bun", async () => ({ program: RUNTIME === "bun" ? execPath : await bunProgram(), env: {} }));
}

async function have(
  context: SkippableTest,
  name: string,
  ensure: () => Promise<Installed>,
): Promise<Installed | undefined> {
  if (!await haveProgram(context, ["python3", "--version"])) return undefined;
  try {
    return await ensure();
  } catch (error) {
    skipTest(context, `${name} can't be had here: ${error instanceof Error ? error.message : error}`);
    return undefined;
  }
}

/** Runs a program of an application to its end. @returns what it printed; rejects, with all of it, when it fails */
export async function runInstalled(
  { program, env }: Installed,
  args: readonly string[],
  options: { cwd?: string; env?: Record<string, string>; input?: string } = {},
): Promise<string> {
  const result = await runProgram([program, ...args], {
    ...options,
    env: { ...env, ...options.env },
    timeoutMs: RUN_TIMEOUT_MS,
  });
  if (result.code === 0) return result.stdout;
  throw new Error(`${program} ${args.join(" ")}: ${JSON.stringify(result)}\n${result.stdout}\n${result.stderr}`);
}

/** Nodes whose databases are the application's to make: there are no files yet, and no Marmot runs. */
export async function emptyCluster(count: number, args: readonly string[] = []): Promise<Cluster> {
  const folder = await tempFolder();
  const server = await startNatsServer();
  const nodes: TestNode[] = [];
  for (const name of "abcdefgh".slice(0, count)) nodes.push(await emptyNode(name, folder, server.url, args));
  return new Cluster(nodes, server, folder);
}

async function emptyNode(name: string, folder: TempFolder, url: string, args: readonly string[]): Promise<TestNode> {
  const path = folder.file(`${name}.db`);
  return new TestNode(name, path, await App.start(path), ["--nats-url", url, ...args], false);
}
