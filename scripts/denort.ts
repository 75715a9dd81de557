/**
 * Makes a pair of Deno and of the runtime that its `deno compile` puts into programs, for machines that can't download
 * the latter (Linux x64 only). The runtime is the part in front of the payload of a program that was made with
 * `deno compile` of that version and is published on PyPI (bids-validator-deno, MIT).
 *
 *     DENORT_BIN=$(deno run --allow-all scripts/denort.ts) deno task build
 *
 * For tests: releases are built with the pinned Deno, and its own runtime. This older one fails at TLS over a socket that
 * is connected already, as NATS has it, and sees no events of a single file, so that commits are found by polling.
 */
import type { Buffer } from "node:buffer";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { access, chmod, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { arch, platform, stderr, stdout } from "node:process";
import { promisify } from "node:util";
import { cacheFolder } from "../src/nats/server_binary.ts";

const DENO_VERSION = "2.6.10";
const DENORT_SHA256 = "1b136202dc147212ad0b129de0c10eb5f17060917c9754c7921cd68f764ad2e2";
const WHEELS = [
  { requirement: `deno==${DENO_VERSION}`, member: "scripts/deno", name: "deno" },
  { requirement: "bids-validator-deno==2.4.1", member: "scripts/bids-validator-deno", name: "denort" },
] as const;
const DOWNLOAD_TIMEOUT_MS = 300_000;
/** ELF64: where the header says that the table of sections begins, the size of its entries, and how many there are */
const SECTIONS_AT = 0x28;
const SECTION_SIZE_AT = 0x3a;
const SECTION_COUNT_AT = 0x3c;

const run = promisify(execFile);

/** @returns the path of denort; the deno that goes with it is beside it */
export async function ensureDenort(say: (line: string) => void): Promise<string> {
  if (platform !== "linux" || arch !== "x64") {
    throw new Error("Cannot make denort: it is to be had for Linux x64 only.");
  }
  const folder = join(cacheFolder() ?? tmpdir(), "marmot", `denort-${DENO_VERSION}`);
  const there = await access(folder).then(() => true, () => false);
  if (!there) {
    say(`Getting Deno ${DENO_VERSION} and its denort from PyPI…`);
    await make(folder);
  }
  return join(folder, "denort");
}

async function make(folder: string): Promise<void> {
  const scratch = await mkdtemp(join(tmpdir(), "marmot-denort-"));
  try {
    const requirements = WHEELS.map(({ requirement }) => requirement);
    const download = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "-d", scratch];
    await run("python3", [...download, ...requirements], { timeout: DOWNLOAD_TIMEOUT_MS });
    const wheels = (await readdir(scratch)).filter((name) => name.endsWith(".whl"));
    const fresh = join(scratch, "pair");
    await mkdir(fresh);
    for (const { requirement, member, name } of WHEELS) {
      const wheel = wheels.find((file) => file.startsWith(requirement.replace(/==.*/, "").replaceAll("-", "_") + "-"));
      const unpacked = join(scratch, name);
      await run("python3", ["-m", "zipfile", "-e", join(scratch, wheel ?? ""), unpacked]);
      const paths = await readdir(unpacked, { recursive: true });
      const bytes = await readFile(join(unpacked, paths.find((path) => path.endsWith(member)) ?? ""));
      await writeFile(join(fresh, name), name === "denort" ? withoutPayload(bytes) : bytes);
      await chmod(join(fresh, name), 0o755);
    }
    await mkdir(join(folder, ".."), { recursive: true });
    // Not a rename: the scratch folder may be on another file system.
    await run("cp", ["-r", fresh, `${folder}.new`]);
    await rename(`${folder}.new`, folder);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** The table of sections is the end of the file that the payload was appended to. */
function withoutPayload(compiled: Buffer): Buffer {
  const table = Number(compiled.readBigUInt64LE(SECTIONS_AT));
  const end = table + compiled.readUInt16LE(SECTION_SIZE_AT) * compiled.readUInt16LE(SECTION_COUNT_AT);
  const denort = compiled.subarray(0, end);
  const digest = createHash("sha256").update(denort).digest("hex");
  if (digest !== DENORT_SHA256) throw new Error(`Cannot use denort: its digest is ${digest}, not ${DENORT_SHA256}.`);
  return denort;
}

if (import.meta.main) stdout.write(`${await ensureDenort((line) => void stderr.write(`${line}\n`))}\n`);
