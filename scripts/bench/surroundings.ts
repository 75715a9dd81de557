/** The machine and the versions that figures were made with. */
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { cpus, totalmem } from "node:os";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { NATS_SERVER_VERSION } from "../../src/nats/server_binary.ts";
import { VERSION } from "../../src/version.ts";
import { BUN_VERSION } from "../test_runtimes.ts";
import { Application } from "./application.ts";

const BYTES_PER_GB = 2 ** 30;
const run = promisify(execFile);

export interface Surroundings {
  readonly date: string;
  readonly machine: {
    readonly processor: string;
    readonly cores: number;
    readonly memoryGB: number;
    readonly kernel: string;
  };
  readonly versions: Readonly<Record<string, string>>;
  /** of this project; with a + when files were changed since */
  readonly commit: string;
}

export async function surroundings(): Promise<Surroundings> {
  await using application = await Application.start(":memory:");
  const { sqlite, python } = await application.facts();
  const processors = cpus();
  return {
    date: new Date().toISOString().slice(0, 10),
    machine: {
      processor: processors[0]?.model.trim() ?? "unknown",
      cores: processors.length,
      memoryGB: Math.round(totalmem() / BYTES_PER_GB),
      kernel: (await readFile("/proc/sys/kernel/osrelease", "utf8")).trim(),
    },
    versions: {
      marmot: VERSION,
      deno: process.versions.deno ?? "",
      bun: BUN_VERSION,
      "nats-server": NATS_SERVER_VERSION,
      python,
      "SQLite of Python": sqlite,
    },
    commit: await commit(),
  };
}

async function commit(): Promise<string> {
  const options = { cwd: fileURLToPath(new URL("../../", import.meta.url)) };
  const head = await run("git", ["rev-parse", "--short", "HEAD"], options).catch(() => undefined);
  if (head === undefined) return "unknown";
  const changed = await run("git", ["status", "--porcelain", "--untracked-files=no"], options);
  return head.stdout.trim() + (changed.stdout === "" ? "" : "+");
}
