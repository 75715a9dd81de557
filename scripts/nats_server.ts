/**
 * Gets the pinned nats-server: one that is here already, else the official release by its digest, else built with Go.
 *
 *     deno run --allow-all scripts/nats_server.ts [PATH]
 *
 * prints where it is.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { chmod, copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { arch, argv, env, platform, stderr, stdout } from "node:process";
import { promisify } from "node:util";
import {
  cachedNatsServer,
  findNatsServer,
  NATS_SERVER_VERSION,
  type NatsServerBinary,
  natsServerVersion,
} from "../src/nats/server_binary.ts";
import { goBuildInfo } from "./build/go_build_info.ts";

const CONNECT_TIMEOUT_MS = 5_000;
const DOWNLOAD_TIMEOUT_MS = 120_000;
const BUILD_TIMEOUT_MS = 600_000;
const RELEASES = "https://github.com/nats-io/nats-server/releases/download";
const MODULE = "github.com/nats-io/nats-server/v2";

interface Release {
  readonly file: string;
  readonly sha256: string;
}

/** What a nats-server is made for: as node:process names it, and as Go does. */
export interface Machine {
  readonly platform: string;
  readonly arch: string;
  readonly go: { readonly os: string; readonly arch: string };
}

/** A nats-server to be had, and where to. */
interface Order {
  readonly target: string;
  /** undefined for this machine */
  readonly machine?: Machine;
  readonly say: (line: string) => void;
}

/** Digests of the official archives of NATS_SERVER_VERSION. Without one nothing is downloaded: never invent one. */
const OFFICIAL_RELEASES: Readonly<Record<string, Release>> = {
  "linux-x64": {
    file: `nats-server-v${NATS_SERVER_VERSION}-linux-amd64.tar.gz`,
    sha256: "5e3b603d47c447bda1f77f9ac16dbf91c90aac4ff3681f8fbbc7201e4ed99355",
  },
  "linux-arm64": {
    file: `nats-server-v${NATS_SERVER_VERSION}-linux-arm64.tar.gz`,
    sha256: "673a98d3faa79dde3f9ebf16d6dfac36a5f694e7ad2015e4954dd7939c85cd4c",
  },
  "linux-arm": {
    file: `nats-server-v${NATS_SERVER_VERSION}-linux-arm7.tar.gz`,
    sha256: "c8796b63a8603fdebabd63146ac3d3997c29a2829fdd2af6db320f4a287f2e71",
  },
  "win32-x64": {
    file: `nats-server-v${NATS_SERVER_VERSION}-windows-amd64.zip`,
    sha256: "f66f840a211ab665083b88e9b7edbcf6296cda143be47e53e6f6bb8520692bbb",
  },
};

const run = promisify(execFile);

/**
 * The path of a nats-server that fits, fetched into this user's cache if need be.
 * @param say told what takes time and what was tried
 * @throws Error that names every source tried and what to do
 */
export async function ensureNatsServer(
  explicit: string | undefined,
  say: (line: string) => void,
): Promise<NatsServerBinary> {
  const found = await findNatsServer(explicit);
  if (found !== undefined) return found;
  const target = cachedNatsServer();
  if (target === undefined) throw new Error("Cannot keep a nats-server: this user has no home. Set XDG_CACHE_HOME.");
  let version: string | undefined;
  await fetchNatsServer({ target, say }, async () => (version = await natsServerVersion(target)) !== undefined);
  return { path: target, version: version ?? NATS_SERVER_VERSION };
}

/**
 * The path of exactly the pinned version for a machine, this or another one, which needs no library there.
 * @throws Error that names every source tried and what to do
 */
export async function pinnedNatsServer(machine: Machine, say: (line: string) => void): Promise<string> {
  const native = machine.platform === platform && machine.arch === arch;
  const cached = cachedNatsServer();
  if (cached === undefined) throw new Error("Cannot keep a nats-server: this user has no home. Set XDG_CACHE_HOME.");
  const other = `${dirname(cached)}-${machine.platform}-${machine.arch}`;
  const target = native ? cached : join(other, machine.platform === "win32" ? "nats-server.exe" : "nats-server");
  const fits = async () => isPinned(await readFile(target).catch(() => new Uint8Array()), machine);
  if (!await fits()) await fetchNatsServer({ target, machine, say }, fits);
  return target;
}

function isPinned(program: Uint8Array, { go }: Machine): boolean {
  const info = goBuildInfo(program);
  const setting = (name: string) => info?.settings.get(name);
  return info?.modules[0]?.version === `v${NATS_SERVER_VERSION}` && setting("CGO_ENABLED") === "0" &&
    setting("GOOS") === go.os && setting("GOARCH") === go.arch;
}

async function fetchNatsServer(order: Order, fits: () => Promise<boolean>): Promise<void> {
  await mkdir(dirname(order.target), { recursive: true });
  const failures: string[] = [];
  for (const source of [fromRelease, fromGo]) {
    try {
      await source(order);
      if (await fits()) return;
      failures.push("what it gave is not that version for this machine");
    } catch (error) {
      failures.push(error instanceof Error ? error.message : String(error));
    }
  }
  throw new Error(
    `Cannot get nats-server ${NATS_SERVER_VERSION}: ${failures.join("; ")}. ` +
      "Install Go 1.25 or newer and try again, or give a nats-server with --nats-server PATH.",
  );
}

/** Downloads the official archive and checks its digest before anything of it is unpacked. */
async function fromRelease({ target, machine, say }: Order): Promise<void> {
  const kind = `${machine?.platform ?? platform}-${machine?.arch ?? arch}`;
  const release = OFFICIAL_RELEASES[kind];
  if (release === undefined) {
    throw new Error(`no digest of an official release is known for ${kind}, so none is downloaded`);
  }
  const archive = await download(`${RELEASES}/v${NATS_SERVER_VERSION}/${release.file}`);
  const digest = createHash("sha256").update(archive).digest("hex");
  if (digest !== release.sha256) {
    throw new Error(`the download of ${release.file} has the wrong digest ${digest}, so it was thrown away`);
  }
  say(`Downloaded nats-server ${NATS_SERVER_VERSION} (${release.file}, digest checked)`);
  await inScratchFolder(async (folder) => {
    await writeFile(join(folder, release.file), archive);
    // bsdtar, which is the tar of Windows and macOS, reads zip archives too.
    await run("tar", ["-xf", release.file], { cwd: folder });
    await place(await findProgram(folder, basename(target)), target);
  });
}

async function download(url: string): Promise<Uint8Array> {
  const abort = new AbortController();
  let timer = setTimeout(() => abort.abort(), CONNECT_TIMEOUT_MS);
  try {
    const response = await fetch(url, { signal: abort.signal });
    clearTimeout(timer);
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    timer = setTimeout(() => abort.abort(), DOWNLOAD_TIMEOUT_MS);
    return new Uint8Array(await response.arrayBuffer());
  } catch (error) {
    const reason = abort.signal.aborted ? "no answer in time" : error instanceof Error ? error.message : String(error);
    throw new Error(`the official release could not be downloaded (${reason})`);
  } finally {
    clearTimeout(timer);
  }
}

/** Builds it from the module of that version, whose checksum Go itself verifies. */
async function fromGo({ target, machine, say }: Order): Promise<void> {
  const modules = await run("go", ["env", "GOMODCACHE"]).then(({ stdout }) => stdout.trim(), () => undefined);
  if (modules === undefined) throw new Error("there is no Go to build it with");
  say(`Building nats-server ${NATS_SERVER_VERSION} with Go, which takes about a minute (once)…`);
  await inScratchFolder(async (folder) => {
    // Go refuses GOBIN for another machine, so what it installs goes where it keeps that by itself.
    const places = { GOPATH: folder, GOMODCACHE: modules, GOBIN: "" };
    const { os, arch } = machine?.go ?? { os: "", arch: "" };
    const environment = { ...env, ...places, CGO_ENABLED: "0", GOOS: os, GOARCH: arch, GOFLAGS: env.GOFLAGS ?? "" };
    const build = ["install", "-trimpath", "-ldflags", "-s -w", `${MODULE}@v${NATS_SERVER_VERSION}`];
    await run("go", build, { env: environment, timeout: BUILD_TIMEOUT_MS }).catch((error: unknown) => {
      const text = error instanceof Error ? error.message : String(error);
      throw new Error(`go install failed: ${text.trim().split("\n").slice(-3).join(" ")}`);
    });
    await place(await findProgram(folder, basename(target)), target);
  });
}

async function inScratchFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "marmot-nats-server-"));
  try {
    await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function findProgram(folder: string, name: string): Promise<string> {
  const names = await readdir(folder, { recursive: true });
  const program = names.find((path) => basename(path) === name);
  if (program === undefined) throw new Error(`no ${name} came out`);
  return join(folder, program);
}

/** In one step, so that two runs at once never see half a file, and one that runs is not written over. */
async function place(from: string, target: string): Promise<void> {
  const temporary = `${target}.${Math.random().toString(36).slice(2)}`;
  await copyFile(from, temporary);
  await chmod(temporary, 0o755);
  await rename(temporary, target);
}

if (import.meta.main) {
  const binary = await ensureNatsServer(argv[2], (line) => void stderr.write(`${line}\n`));
  stdout.write(`${binary.path}\n`);
}
