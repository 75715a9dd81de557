/**
 * The nats-server inside a self-contained Marmot. It is unpacked once, into a folder that nobody else may write to, and
 * compared with its digest at every start. Where Marmot runs from sources, there is none.
 */
import { createHash, randomBytes } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { chmod, mkdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import * as v from "valibot";
import { EXIT, MarmotError } from "../errors.ts";
import { cacheFolder, type NatsServerBinary, natsServerVersion, PROGRAM } from "./server_binary.ts";

/** scripts/build.ts puts both beside the bundle, which this module is a part of then. */
const RECORD = new URL("./nats-server.json", import.meta.url);
const CONTENT = new URL("./nats-server", import.meta.url);

const PRIVATE_MODE = 0o700;
const OTHERS_WRITE = 0o022;
const DIGEST_SHOWN = 12;
const RANDOM_BYTES = 6;

const recordSchema = v.object({ version: v.string(), sha256: v.string() });

export interface EmbeddedProgram {
  /** such as "2.14.5" */
  readonly version: string;
  /** of its bytes, in hex */
  readonly sha256: string;
  bytes(): Promise<Uint8Array>;
}

export function embeddedNatsServer(): EmbeddedProgram | undefined {
  if (!existsSync(RECORD)) return undefined;
  const record = v.parse(recordSchema, JSON.parse(readFileSync(RECORD, "utf8")));
  return { ...record, bytes: () => readFile(CONTENT) };
}

/**
 * Puts it into this user's cache or, if programs can't be written and run there, beside the database.
 * @param folder `<database>-marmot`
 * @throws MarmotError (broker) that says what is in the way in each place
 */
export async function unpackNatsServer(program: EmbeddedProgram, folder: string): Promise<NatsServerBinary> {
  const cache = cacheFolder();
  const obstacles: string[] = [];
  for (const place of [...(cache === undefined ? [] : [join(cache, "marmot")]), folder]) {
    try {
      return { path: await unpackInto(place, program), version: program.version };
    } catch (error) {
      obstacles.push(`${place}: ${obstacle(error)}`);
    }
  }
  throw new MarmotError(
    `Cannot start the embedded broker: its nats-server can't be unpacked (${
      obstacles.join("; ")
    }). Set XDG_CACHE_HOME ` +
      "to a folder where this user may write and run programs, or give a nats-server with --nats-server PATH.",
    EXIT.broker,
  );
}

/** @throws Error with what is in the way */
async function unpackInto(place: string, program: EmbeddedProgram): Promise<string> {
  const folder = join(place, `nats-server-${program.version}-${program.sha256.slice(0, DIGEST_SHOWN)}`);
  const path = join(folder, PROGRAM);
  await mkdir(folder, { recursive: true, mode: PRIVATE_MODE });
  // Whoever may write to one of them could put another program there between the check and the start.
  for (const checked of [dirname(folder), folder]) await refuseOthers(checked);
  if (await digestOf(path) !== program.sha256) await unpack(path, program);
  if (await natsServerVersion(path) === undefined) {
    throw new Error("programs can't be run from there (mounted noexec?)");
  }
  return path;
}

async function refuseOthers(folder: string): Promise<void> {
  const { uid, mode } = await stat(folder);
  if (process.getuid === undefined) return;
  if (uid !== process.getuid()) throw new Error("it belongs to another user");
  if ((mode & OTHERS_WRITE) !== 0) await chmod(folder, PRIVATE_MODE);
}

/** @returns undefined when there is no such file */
async function digestOf(path: string): Promise<string | undefined> {
  const bytes = await readFile(path).catch(() => undefined);
  return bytes && createHash("sha256").update(bytes).digest("hex");
}

/** In one step: another Marmot may do the same, or run what was there. */
async function unpack(path: string, program: EmbeddedProgram): Promise<void> {
  const bytes = await program.bytes();
  if (createHash("sha256").update(bytes).digest("hex") !== program.sha256) {
    throw new Error("what this Marmot holds is damaged: download it again");
  }
  const fresh = `${path}.${randomBytes(RANDOM_BYTES).toString("hex")}`;
  try {
    await writeFile(fresh, bytes, { mode: PRIVATE_MODE, flag: "wx" });
    await rename(fresh, path);
  } catch (error) {
    await rm(fresh, { force: true });
    throw error;
  }
}

function obstacle(error: unknown): string {
  const states: Record<string, string> = {
    EACCES: "this user may not write there",
    EPERM: "this user may not write there",
    EROFS: "the file system is read-only",
    ENOSPC: "the disk is full",
    ENOTDIR: "a part of the path is a file",
  };
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  return states[code] ?? (error instanceof Error ? error.message : String(error));
}
