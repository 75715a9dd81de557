/**
 * Makes a self-contained executable of Marmot: runtime, code and nats-server.
 *
 *     deno task build [--runtime deno|bun] [--target NAME] [--archive]
 *
 * Writes dist/marmot (with Bun dist/marmot-bun, for another machine dist/marmot-NAME), its notices of licences and bill of
 * materials, and what it came to into dist/manifest.json. --archive also packs it as it is released.
 */
import { execFile } from "node:child_process";
import { copyFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { VERSION } from "../src/version.ts";
import { NATS_SERVER_VERSION } from "../src/nats/server_binary.ts";
import { compile, compilingRuntime } from "./build/compile.ts";
import { componentsOf } from "./build/contents.ts";
import { goBuildInfo } from "./build/go_build_info.ts";
import { checkExecutable } from "./build/inspect.ts";
import { addToManifest, billOfMaterials, type FileFacts, fileFacts, notices } from "./build/manifest.ts";
import { findTarget, isNative, type RuntimeName, type Target } from "./build/targets.ts";
import { pinnedNatsServer } from "./nats_server.ts";

const DIST = "dist";
const MEGABYTE = 1_000_000;

const run = promisify(execFile);
const print = (line: string) => void process.stdout.write(`${line}\n`);

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { runtime: { type: "string" }, target: { type: "string" }, archive: { type: "boolean" } },
  });
  process.chdir(fileURLToPath(new URL("..", import.meta.url)));
  const target = findTarget(values.target);
  const name = runtimeName(values.runtime);
  await mkdir(DIST, { recursive: true });
  const natsServer = await pinnedNatsServer(target, print);
  const { size, sha256 } = await fileFacts(natsServer);
  const natsServerBytes = await readFile(natsServer);
  const info = goBuildInfo(natsServerBytes);
  if (info === undefined) throw new Error(`Cannot build: ${natsServer} is no program of Go`);
  const runtime = await compilingRuntime(name);

  const words = ["marmot", ...(name === "bun" ? ["bun"] : []), ...(isNative(target) ? [] : [target.name])];
  const stem = join(DIST, words.join("-"));
  const output = target.platform === "win32" ? `${stem}.exe` : stem;
  const record = { version: NATS_SERVER_VERSION, sha256 };
  await compile(
    runtime,
    target,
    { natsServer, natsServerRecord: record },
    join(DIST, ".build", words.join("-")),
    output,
  );
  checkExecutable(await readFile(output), target, natsServerBytes, record);

  const components = await componentsOf(runtime, info);
  const facts = await fileFacts(output);
  await writeFile(`${stem}.notices.txt`, notices(components));
  await writeFile(`${stem}.cdx.json`, billOfMaterials(facts, components));
  const archive = values.archive === true ? await pack(target, name, stem, output) : undefined;
  await addToManifest({
    ...facts,
    target: target.name,
    runtime: { name, version: runtime.version },
    sqlite: runtime.sqlite,
    natsServer: { ...record, go: info.go, size },
    ...(archive === undefined ? {} : { archive }),
    contents: components.map(({ text: _, ...component }) => component),
  });
  for (const file of archive === undefined ? [facts] : [facts, archive]) tell(file, `${name} ${runtime.version}`);
}

function runtimeName(given = "deno"): RuntimeName {
  if (given === "deno" || given === "bun") return given;
  throw new Error(`Cannot build with ${given}: there is no such runtime. Give --runtime deno or --runtime bun.`);
}

function tell({ file, size, sha256 }: FileFacts, runtime: string): void {
  print(`${join(DIST, file)}: ${(size / MEGABYTE).toFixed(1)} MB, ${runtime}, sha256 ${sha256}`);
}

/** As it is released: the program, what to read, and on Linux the unit; the bill of materials lies beside it. */
async function pack(target: Target, runtime: RuntimeName, stem: string, program: string): Promise<FileFacts> {
  const title = `marmot-${VERSION}-${target.name}`;
  const folder = join(DIST, ".build", title);
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  const files = [
    [program, target.platform === "win32" ? "marmot.exe" : "marmot"],
    [`${stem}.notices.txt`, "NOTICES.txt"],
    ...["LICENSE", "CHANGELOG.md", "docs/INSTALL.md", "docs/config.toml"].map((
      path,
    ) => [path, path.replace(/.*\//, "")]),
    ...(target.platform === "linux" ? [["packaging/marmot@.service", "marmot@.service"]] : []),
  ];
  for (const [from = "", to = ""] of files) await copyFile(from, join(folder, to));
  // bsdtar, which is the tar of Windows, writes zip archives too.
  const ending = target.platform === "win32" ? ".zip" : runtime === "bun" ? ".tar.xz" : ".tar.gz";
  const archive = join(DIST, `${title}${ending}`);
  await run("tar", ["-a", "-cf", archive, "-C", join(DIST, ".build"), title]);
  await rm(folder, { recursive: true });
  await copyFile(`${stem}.cdx.json`, join(DIST, `${title}.cdx.json`));
  return await fileFacts(archive);
}

try {
  await main();
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 1;
}
