/** Finds a nats-server program on this machine. It never fetches one: scripts/nats_server.ts does. */
import { execFile } from "node:child_process";
import { access, constants } from "node:fs/promises";
import { homedir } from "node:os";
import { delimiter, isAbsolute, join } from "node:path";
import { env, platform } from "node:process";
import { EXIT, MarmotError } from "../errors.ts";

/** The release that Marmot is tested with. */
export const NATS_SERVER_VERSION = "2.14.5";
/** An older one, named with --nats-server, does as well: per-key TTL of the lease needs it. */
export const NATS_SERVER_MINIMUM = "2.11.0";
const VERSION_TIMEOUT_MS = 5_000;

export const PROGRAM = platform === "win32" ? "nats-server.exe" : "nats-server";

export interface NatsServerBinary {
  readonly path: string;
  /** such as "2.14.5" */
  readonly version: string;
}

/** Where this user's copy of the pinned nats-server lives, whether it is there or not; undefined without a cache. */
export function cachedNatsServer(): string | undefined {
  const folder = cacheFolder();
  return folder && join(folder, "marmot", `nats-server-${NATS_SERVER_VERSION}`, PROGRAM);
}

/** What the operating system calls this user's cache; undefined for a user without a home. */
export function cacheFolder(): string | undefined {
  // A relative one is void, says its specification: it would be another folder in each working directory.
  if (env.XDG_CACHE_HOME && isAbsolute(env.XDG_CACHE_HOME)) return env.XDG_CACHE_HOME;
  if (platform === "win32" && env.LOCALAPPDATA) return env.LOCALAPPDATA;
  const home = homeFolder();
  if (home === undefined) return undefined;
  if (platform === "win32") return join(home, "AppData", "Local");
  return platform === "darwin" ? join(home, "Library", "Caches") : join(home, ".cache");
}

/** From HOME or the list of users. For one that is on neither, Bun throws and Deno has null. */
function homeFolder(): string | undefined {
  try {
    return homedir() || undefined;
  } catch {
    return undefined;
  }
}

/**
 * The nats-server to run: the one asked for, else one in PATH or this user's cache that is the pinned version or newer.
 * @param explicit path given with --nats-server
 * @returns undefined when none was asked for and none is there
 * @throws MarmotError (broker) when the one asked for is missing, is no nats-server, or is too old
 */
export async function findNatsServer(explicit?: string): Promise<NatsServerBinary | undefined> {
  if (explicit !== undefined) return await explicitNatsServer(explicit);
  const folders = (env.PATH ?? "").split(delimiter).filter((folder) => folder !== "");
  const cached = cachedNatsServer();
  const paths = folders.map((folder) => join(folder, PROGRAM));
  for (const path of cached === undefined ? paths : [...paths, cached]) {
    const version = await natsServerVersion(path);
    if (version !== undefined && fits(version, NATS_SERVER_VERSION)) return { path, version };
  }
  return undefined;
}

/** @throws MarmotError (broker) as findNatsServer does, and when there is none at all */
export async function requireNatsServer(explicit?: string): Promise<NatsServerBinary> {
  const found = await findNatsServer(explicit);
  if (found !== undefined) return found;
  throw new MarmotError(
    `Cannot start the embedded broker: no nats-server ${NATS_SERVER_VERSION} or newer in PATH or at ` +
      `${
        cachedNatsServer() ?? "~/.cache"
      }. Give one with --nats-server PATH, or use a NATS server of your own with --nats-url URL.`,
    EXIT.broker,
  );
}

async function explicitNatsServer(path: string): Promise<NatsServerBinary> {
  const version = await natsServerVersion(path);
  if (version === undefined) {
    const state = await access(path).then(() => "is no nats-server that runs here", () => "there is no such file");
    throw new MarmotError(
      `Cannot start the embedded broker: --nats-server ${path}: ${state}. ` +
        `Name a nats-server ${NATS_SERVER_VERSION} for this machine.`,
      EXIT.broker,
    );
  }
  if (fits(version, NATS_SERVER_MINIMUM)) return { path, version };
  throw new MarmotError(
    `Cannot start the embedded broker: --nats-server ${path} is version ${version}. ` +
      `Marmot needs ${NATS_SERVER_MINIMUM} or newer (2.x) and is tested with ${NATS_SERVER_VERSION}.`,
    EXIT.broker,
  );
}

/** @returns undefined when `path` is not a nats-server that can be run */
export async function natsServerVersion(path: string): Promise<string | undefined> {
  const runnable = await access(path, constants.X_OK).then(() => true, () => false);
  if (!runnable) return undefined;
  const output = await new Promise<string>((resolve) => {
    // Deno throws some spawn errors at once instead of passing them to the callback.
    try {
      execFile(path, ["--version"], { env: bareEnvironment(), timeout: VERSION_TIMEOUT_MS }, (error, stdout) => {
        resolve(error === null ? String(stdout) : "");
      });
    } catch {
      resolve("");
    }
  });
  return /^nats-server: v(\d+\.\d+\.\d+)/.exec(output)?.[1];
}

/** What a program of Go needs to run at all: nothing, but for Windows. No secret of ours is handed on. */
export function bareEnvironment(): Record<string, string> {
  const environment: Record<string, string> = {};
  for (const name of ["SYSTEMROOT", "TEMP", "TMP"]) {
    const value = env[name];
    if (platform === "win32" && value !== undefined) environment[name] = value;
  }
  return environment;
}

/** Same major version, and not older. */
function fits(version: string, minimum: string): boolean {
  const [major = 0, minor = 0, patch = 0] = version.split(".").map(Number);
  const [minMajor = 0, minMinor = 0, minPatch = 0] = minimum.split(".").map(Number);
  if (major !== minMajor) return false;
  return minor > minMinor || (minor === minMinor && patch >= minPatch);
}
