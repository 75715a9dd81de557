/** What `marmot --version` says. */
import { versions } from "node:process";
import { NATS_SERVER_VERSION } from "../nats/server_binary.ts";
import { VERSION } from "../version.ts";

export function versionText(): string {
  const runtime = versions.bun === undefined ? `deno ${versions.deno}` : `bun ${versions.bun}`;
  return [
    `marmot ${VERSION}`,
    runtime,
    `SQLite ${versions.sqlite}`,
    `nats-server ${NATS_SERVER_VERSION} (the one it is made for)`,
  ].join("\n");
}
