/** What is inside a binary, with licences: the runtime, npm packages, nats-server and its Go modules. */
import { execFile } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { env } from "node:process";
import { promisify } from "node:util";
import { VERSION } from "../../src/version.ts";
import type { Runtime } from "./compile.ts";
import type { GoBuildInfo } from "./go_build_info.ts";

export interface Component {
  readonly name: string;
  readonly version: string;
  /** SPDX expression */
  readonly licence: string;
  /** package URL */
  readonly purl: string;
  /** the licence, as its authors give it */
  readonly text: string;
}

interface LockFile {
  readonly npm: Readonly<Record<string, { readonly dependencies?: readonly string[] }>>;
}

const run = promisify(execFile);

/** All of it, Marmot first. @throws Error when the licence of something can't be told */
export async function componentsOf(runtime: Runtime, natsServer: GoBuildInfo): Promise<Component[]> {
  const text = await readFile("LICENSE", "utf8");
  const marmot = { name: "marmot", version: VERSION, licence: "MIT", purl: `pkg:generic/marmot@${VERSION}`, text };
  return [marmot, ...await runtimeComponents(runtime), ...await npmComponents(), ...await goComponents(natsServer)];
}

async function runtimeComponents({ name, version, sqlite, engine }: Runtime): Promise<Component[]> {
  const text = await readFile(join("packaging", "licences", `${name}.txt`), "utf8");
  const inside = `See the notice of ${name}.\n`;
  const [engineName, licence] = name === "deno" ? ["v8", "BSD-3-Clause"] : ["JavaScriptCore", "LGPL-2.0-or-later"];
  return [
    { name, version, licence: "MIT", purl: `pkg:generic/${name}@${version}`, text },
    { name: engineName, version: engine, licence, purl: `pkg:generic/${engineName}@${engine}`, text: inside },
    { name: "sqlite", version: sqlite, licence: "blessing", purl: `pkg:generic/sqlite@${sqlite}`, text: inside },
  ];
}

/** What package.json asks for, and what that needs, as the lock file has it. */
async function npmComponents(): Promise<Component[]> {
  const { dependencies }: { dependencies: Record<string, string> } = JSON.parse(await readFile("package.json", "utf8"));
  const { npm }: LockFile = JSON.parse(await readFile("deno.lock", "utf8"));
  // Keys are `name@version`, with `_` and the peers it was resolved with.
  const locked = new Map(Object.keys(npm).map((key) => [/^(@?[^@]+)@/.exec(key)?.[1] ?? key, key]));
  const found = new Map<string, Component>();
  const waiting = Object.keys(dependencies);
  for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
    const key = locked.get(name);
    if (key === undefined) throw new Error(`Cannot list the packages: deno.lock has no ${name}. Run \`deno install\`.`);
    if (found.has(name)) continue;
    found.set(name, await npmComponent(name, key.slice(name.length + 1).replace(/_.*/, "")));
    waiting.push(...(npm[key]?.dependencies ?? []).map((dependency) => dependency.replace(/(?<=.)@.*/, "")));
  }
  return [...found.values()].sort((a, b) => a.name < b.name ? -1 : 1);
}

async function npmComponent(name: string, version: string): Promise<Component> {
  const stored = `${name.replace("/", "+")}@${version}`;
  const folder = join("node_modules", ".deno", stored, "node_modules", ...name.split("/"));
  const { license }: { license?: string } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const text = await licenceText(folder);
  const purl = `pkg:npm/${name.replace("@", "%40")}@${version}`;
  return { name, version, licence: license ?? spdxOf(text, name), purl, text };
}

/** The modules that the linker named in the program, from Go's own cache or its proxy, and Go's library. */
async function goComponents({ go, modules }: GoBuildInfo): Promise<Component[]> {
  const components: Component[] = [];
  for (const { path, version } of modules) {
    const options = { cwd: tmpdir(), env: { ...env, GOFLAGS: "-mod=mod", GO111MODULE: "on" } };
    const { stdout } = await run("go", ["mod", "download", "-json", `${path}@${version}`], options);
    const { Dir }: { Dir: string } = JSON.parse(stdout);
    const text = await licenceText(Dir);
    const purl = `pkg:golang/${path}@${version}`;
    components.push({ name: path, version, licence: spdxOf(text, path), purl, text });
  }
  const { stdout } = await run("go", ["env", "GOROOT"]);
  const version = go.replace(/^go/, "");
  const text = await licenceText(stdout.trim());
  const library = { name: "go", version, licence: "BSD-3-Clause", purl: `pkg:generic/go@${version}`, text };
  return [...components, library];
}

async function licenceText(folder: string): Promise<string> {
  const name = (await readdir(folder)).find((found) => /^(licen[cs]e|copying)(\.|$)/i.test(found));
  if (name === undefined) throw new Error(`Cannot tell the licence of what is in ${folder}: it has no LICENSE file.`);
  return await readFile(join(folder, name), "utf8");
}

/** By the words that are in each copy of a licence. */
function spdxOf(text: string, name: string): string {
  if (/Apache License,?\s+Version 2\.0/.test(text)) return "Apache-2.0";
  if (/Permission is hereby granted, free of charge/.test(text)) return "MIT";
  if (/Redistribution and use in source and binary forms/.test(text)) {
    return /Neither the name/.test(text) ? "BSD-3-Clause" : "BSD-2-Clause";
  }
  throw new Error(`Cannot tell the licence of ${name} by its text. Add its words to scripts/build/contents.ts.`);
}
