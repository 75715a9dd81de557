import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { readFile } from "node:fs/promises";
import { arch, execPath, platform } from "node:process";
import { test } from "node:test";
import type { Component } from "../scripts/build/contents.ts";
import { goBuildInfo } from "../scripts/build/go_build_info.ts";
import { checkExecutable } from "../scripts/build/inspect.ts";
import { billOfMaterials, notices } from "../scripts/build/manifest.ts";
import { findTarget, TARGETS } from "../scripts/build/targets.ts";
import { natsServerProgram } from "./support/nats.ts";

function component(name: string, licence: string, text: string): Component {
  return { name, version: "1.0", licence, purl: `pkg:generic/${name}@1.0`, text };
}

test("a program of Go tells its modules and how it was built; any other program tells nothing", async () => {
  const info = goBuildInfo(await readFile(await natsServerProgram()));
  assert.ok(info !== undefined);
  assert.match(info.go, /^go1\.\d+/);
  const [server, ...modules] = info.modules;
  assert.equal(server?.path, "github.com/nats-io/nats-server/v2");
  assert.ok(
    modules.some(({ path, version }) => path === "github.com/nats-io/nkeys" && /^v\d+\.\d+\.\d+$/.test(version)),
  );
  assert.equal(info.settings.get("GOOS"), platform === "win32" ? "windows" : platform);
  assert.equal(goBuildInfo(Buffer.from("#!/bin/sh\n")), undefined);
});

test("an executable for another machine, or without its nats-server, is refused", async () => {
  const program = await readFile(execPath);
  const natsServer = program.subarray(1_000, 2_000);
  const inside = program.subarray(2_000, 2_064).toString("latin1");
  const check = (target: string, content = natsServer) => () =>
    checkExecutable(program, findTarget(target), content, { sha256: inside });
  const native = TARGETS.find((target) => target.platform === platform && target.arch === arch && !target.musl)!;
  for (const { name } of TARGETS.filter((target) => target !== native)) {
    assert.throws(check(name), /it is (elf|macho|pe) for machine|its loader is/, name);
  }
  assert.throws(
    check(native.name, Buffer.from("no such bytes are in any runtime: 7b0b1ac3")),
    /nats-server is not whole/,
  );
  assert.throws(
    () => checkExecutable(program, native, natsServer, { sha256: "no digest at all: 7b0b1ac3" }),
    /does not know the digest/,
  );
  assert.throws(() => checkExecutable(Buffer.alloc(4_096), native, natsServer, { sha256: "" }), /it is no executable/);
});

test("a target that does not exist is answered with those that do", () => {
  assert.throws(() => findTarget("amiga"), /Cannot build for amiga: .* linux-x64, .*, windows-x64\.$/);
  assert.equal(findTarget(undefined).arch, arch);
});

test("licences are listed once for all that have them, and the bill of materials has everything but the texts", () => {
  const parts = [
    component("marmot", "MIT", "the MIT licence\r\n"),
    component("other", "MIT", "the MIT licence\n"),
    component("third", "ISC", "x"),
  ];
  const text = notices(parts);
  assert.equal(text.split("the MIT licence").length, 2);
  assert.match(text, /^marmot 1\.0 \(MIT\)\nother 1\.0 \(MIT\)\n\nthe MIT licence\n/m);
  const bom = JSON.parse(billOfMaterials({ file: "marmot", size: 1, sha256: "abc" }, parts));
  assert.equal(bom.specVersion, "1.6");
  assert.deepEqual(bom.metadata.component.hashes, [{ alg: "SHA-256", content: "abc" }]);
  assert.deepEqual(bom.components.map((found: { purl: string }) => found.purl), [
    "pkg:generic/other@1.0",
    "pkg:generic/third@1.0",
  ]);
  assert.deepEqual(bom.components[1].licenses, [{ expression: "ISC" }]);
});
