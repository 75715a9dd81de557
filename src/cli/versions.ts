/** What `marmot --version` says. */
import { versions } from "node:process";
import { NATS_SERVER_VERSION } from "../nats/server_binary.ts";
import { embeddedNatsServer } from "../nats/server_embedded.ts";
import { sqliteVersion } from "../sqlite/connection.ts";
import { VERSION } from "../version.ts";

export function versionText(): string {
  const runtime = versions.bun === undefined ? `deno ${versions.deno}` : `bun ${versions.bun}`;
  const embedded = embeddedNatsServer();
  return [
    `marmot ${VERSION}`,
    runtime,
    `SQLite ${sqliteVersion()}`,
    embedded === undefined
      ? `nats-server ${NATS_SERVER_VERSION} (the one it is made for)`
      : `nats-server ${embedded.version} (inside)`,
  ].join("\n");
}
