/** What is measured: Marmot as it is here, on each runtime; a compiled one; another checkout; a Go predecessor. */
import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { execPath, versions } from "node:process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { BUN_VERSION, bunProgram } from "../test_runtimes.ts";

const PROJECT = fileURLToPath(new URL("../../", import.meta.url));
/** The predecessor deletes the oldest messages beyond this many, delivered or not. */
const PEER_STREAM_ENTRIES = 100_000_000;
/** A peer that moves some hundred rows a second gets this share of the rows. */
const PEER_SHARE_OF_ROWS = 1 / 50;

export interface NodeOptions {
  readonly database: string;
  /** 1, 2, … */
  readonly number: number;
  readonly brokerUrl: string;
  readonly shards: number;
}

export interface System {
  readonly name: string;
  /** of the rows of a scenario, how many this system gets */
  readonly share: number;
  /** tells by its own tables whether everything was published */
  readonly drains: boolean;
  /** The command line of one node, program first; writes its configuration if it needs one. */
  command(node: NodeOptions): Promise<readonly string[]>;
}

const run = promisify(execFile);

function marmot(name: string, program: readonly string[]): System {
  return {
    name,
    share: 1,
    drains: true,
    command: ({ database, brokerUrl, shards }) =>
      Promise.resolve([...program, "--db-path", database, "--nats-url", brokerUrl, "--shards", String(shards)]),
  };
}

/** As that checkout's `deno task start` does it, with its flags for V8. */
async function denoCommand(folder: string): Promise<string[]> {
  const config = `${folder}/deno.json`;
  const flags = (await readFile(config, "utf8")).match(/--v8-flags=[^" ]+(?=[^"]*scripts\/start\.ts)/) ?? [];
  const options = ["run", ...flags, "--quiet", "--allow-all", "--no-lock", "--config", config];
  return [execPath, ...options, `${folder}/cli.ts`];
}

export async function onDeno(): Promise<System> {
  return marmot(`Marmot, Deno ${versions.deno}`, await denoCommand(PROJECT.replace(/\/$/, "")));
}

export async function onBun(): Promise<System> {
  return marmot(`Marmot, Bun ${BUN_VERSION}`, [await bunProgram(), `${PROJECT}cli.ts`]);
}

/** A compiled Marmot. */
export function compiled(path: string): System {
  return marmot(`Marmot, ${path}`, [resolve(path)]);
}

/** Another checkout of this project, on Deno. @param text NAME=FOLDER */
export async function checkout(text: string): Promise<System> {
  const [name, folder] = named(text, "--checkout");
  return marmot(name, await denoCommand(resolve(folder)));
}

/** A Go predecessor's program. @param text NAME=PATH */
export async function peer(text: string): Promise<System> {
  const [name, path] = named(text, "--peer");
  const program = resolve(path);
  const { stdout, stderr } = await run(program, ["-help"]).catch((error: { stdout?: string; stderr?: string }) =>
    error
  );
  if (!/-config\b/.test(`${stdout ?? ""}${stderr ?? ""}`)) {
    throw new Error(`Cannot measure ${path}: it has no option -config. Give the program of a Go predecessor.`);
  }
  return {
    name,
    share: PEER_SHARE_OF_ROWS,
    drains: false,
    command: async (node) => {
      const file = `${node.database}.toml`;
      await writeFile(file, peerConfiguration(node));
      return [program, "-config", file];
    },
  };
}

/** TOML of the predecessor 0.8 and of its fork. */
function peerConfiguration({ database, number, brokerUrl, shards }: NodeOptions): string {
  return [
    `db_path = ${JSON.stringify(database)}`,
    `node_id = ${number}`,
    `seq_map_path = ${JSON.stringify(`${database}.cbor`)}`,
    "[snapshot]",
    "enabled = false",
    "[replication_log]",
    `shards = ${shards}`,
    `max_entries = ${PEER_STREAM_ENTRIES}`,
    "replicas = 1",
    "compress = true",
    "[nats]",
    `urls = [${JSON.stringify(brokerUrl)}]`,
    "[prometheus]",
    "enable = false",
    "[logging]",
    "verbose = false",
    'format = "console"',
    "",
  ].join("\n");
}

function named(text: string, option: string): [name: string, path: string] {
  const at = text.indexOf("=");
  if (at <= 0) throw new Error(`Cannot read ${option} ${text}: it is NAME=PATH`);
  return [text.slice(0, at), text.slice(at + 1)];
}
