/** What a leaf node has to know of its hub: how to log in, and where the hub's JetStream is. */
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { EXIT, MarmotError } from "../errors.ts";
import { withoutUserInfo } from "./address.ts";
import type { Hub, LeafLogin, LeafOptions } from "./server_configuration.ts";
import { type Greeting, readGreeting } from "./server_ports.ts";

const DEFAULT_LEAF_PORT = 7422;
const NKEY_SEED = /^SU[A-Z2-7]{56}$/m;

/**
 * @param lastDomain of the hub, when it was reached before: it need not be there at each start
 * @throws MarmotError (usage for the credentials, broker for a hub whose JetStream can't be used)
 */
export async function findHub(leaf: LeafOptions, lastDomain: string | undefined): Promise<Hub> {
  const login = leaf.credentialsFile === undefined ? undefined : await leafLogin(leaf.credentialsFile);
  const domain = await hubDomain(leaf.urls) ?? lastDomain;
  if (domain !== undefined) return { urls: leaf.urls, login, domain };
  throw new MarmotError(
    `Cannot be a leaf node of ${leaf.urls.map(withoutUserInfo).join(", ")}: no NATS server answers there. ` +
      "Start the hub first, and give the address of its leaf node listener with --leaf-url.",
    EXIT.broker,
  );
}

async function leafLogin(file: string): Promise<LeafLogin> {
  const text = await readFile(file, "utf8").catch((cause: unknown) => {
    throw new MarmotError(`Cannot read the credentials file ${file}: ${cause}. Check its path.`, EXIT.usage, { cause });
  });
  if (text.includes("BEGIN NATS USER JWT")) return { kind: "creds", file: resolve(file) };
  const seed = NKEY_SEED.exec(text)?.[0];
  if (seed !== undefined) return { kind: "nkey", seed };
  throw new MarmotError(
    `Cannot use the credentials file ${file}: it holds neither a NATS user JWT (.creds) nor an nkey user seed (SU…). ` +
      "Give the file that was made for this leaf node.",
    EXIT.usage,
  );
}

/** A hub tells it to whoever connects; undefined when none answers. */
async function hubDomain(urls: readonly string[]): Promise<string | undefined> {
  for (const url of urls) {
    const greeting = await greetingOf(url);
    if (greeting === undefined) continue;
    if (greeting.domain !== undefined) return greeting.domain;
    throw new MarmotError(
      `Cannot be a leaf node of ${withoutUserInfo(url)}: its JetStream has no domain, so leaf nodes can't reach it. ` +
        "Set one there (jetstream { domain: hub }), or name that server with --nats-url instead.",
      EXIT.broker,
    );
  }
  return undefined;
}

async function greetingOf(url: string): Promise<Greeting | undefined> {
  const address = withoutUserInfo(url).replace(/^[a-z-]+:\/\//i, "");
  if (!URL.canParse(`http://${address}`)) return undefined;
  const { hostname, port } = new URL(`http://${address}`);
  const host = hostname.replace(/^\[|\]$/g, "");
  return await readGreeting({ host, port: port === "" ? DEFAULT_LEAF_PORT : Number(port) });
}
