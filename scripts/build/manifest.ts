/** What a build came to: dist/manifest.json, the notices of licences, and a bill of materials (CycloneDX). */
import { createHash } from "node:crypto";
import { readFile, stat, writeFile } from "node:fs/promises";
import { basename } from "node:path";
import { VERSION } from "../../src/version.ts";
import type { Component } from "./contents.ts";

const MANIFEST = "dist/manifest.json";

export interface FileFacts {
  readonly file: string;
  /** bytes */
  readonly size: number;
  readonly sha256: string;
}

export interface Build extends FileFacts {
  readonly target: string;
  readonly runtime: { readonly name: string; readonly version: string };
  readonly sqlite: string;
  readonly natsServer: {
    readonly version: string;
    readonly go: string;
    readonly size: number;
    readonly sha256: string;
  };
  readonly archive?: FileFacts;
  readonly contents: readonly Omit<Component, "text">[];
}

export interface Manifest {
  readonly marmot: string;
  readonly builds: readonly Build[];
}

export async function fileFacts(path: string): Promise<FileFacts> {
  const digest = createHash("sha256").update(await readFile(path)).digest("hex");
  return { file: basename(path), size: (await stat(path)).size, sha256: digest };
}

/** In the place of an earlier build of the same file. */
export async function addToManifest(build: Build): Promise<void> {
  const before: Manifest = JSON.parse(await readFile(MANIFEST, "utf8").catch(() => `{"builds":[]}`));
  const kept = before.marmot === VERSION ? before.builds.filter(({ file }) => file !== build.file) : [];
  const builds = [...kept, build].sort((a, b) => a.file < b.file ? -1 : 1);
  await writeFile(MANIFEST, `${JSON.stringify({ marmot: VERSION, builds }, null, 2)}\n`);
}

/** Licences that were given word for word by several are there once. */
export function notices(components: readonly Component[]): string {
  const byText = new Map<string, Component[]>();
  for (const component of components) {
    const text = component.text.replaceAll("\r\n", "\n").trim();
    byText.set(text, [...byText.get(text) ?? [], component]);
  }
  const parts = [...byText].map(([text, owners]) => {
    const names = owners.map(({ name, version, licence }) => `${name} ${version} (${licence})`);
    return `${names.join("\n")}\n\n${text}\n`;
  });
  return `What is inside this program, and its licences.\n\n${parts.join(`\n${"-".repeat(80)}\n\n`)}`;
}

/** https://cyclonedx.org/docs/1.6/json/ */
export function billOfMaterials(build: FileFacts, [marmot, ...inside]: readonly Component[]): string {
  const component = (type: string, { name, version, licence, purl }: Component) => ({
    type,
    "bom-ref": purl,
    name,
    version,
    licenses: [{ expression: licence }],
    purl,
  });
  if (marmot === undefined) throw new Error("Cannot list the contents of nothing");
  const program = { ...component("application", marmot), hashes: [{ alg: "SHA-256", content: build.sha256 }] };
  const bom = {
    bomFormat: "CycloneDX",
    specVersion: "1.6",
    version: 1,
    metadata: { component: program },
    components: inside.map((found) => component("library", found)),
    dependencies: [{ ref: marmot.purl, dependsOn: inside.map(({ purl }) => purl) }],
  };
  return `${JSON.stringify(bom, null, 2)}\n`;
}
