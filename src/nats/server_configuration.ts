/** The configuration text of the embedded broker. */
import { EXIT, MarmotError } from "../errors.ts";
import type { BrokerFiles } from "./server_files.ts";
import { withoutUserInfo } from "./address.ts";

const LOG_SIZE_BYTES = 1024 * 1024;
/** the file being written, and the one before */
const LOG_FILES = 2;
/** above any disk: JetStream would refuse streams that are allowed to grow beyond what is free at the moment */
const STORE_LIMIT = "4PB";
/** a window of 32 MiB (JetStream's flow control) may be one write, and is to cross a link of 4 Mbit/s */
const WRITE_DEADLINE = "60s";
/** nats-server's own, between brokers */
const ROUTE_WRITE_DEADLINE = "10s";
const CLUSTER_USER = "marmot";
const LEAF_DOMAIN = "marmot";

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

export interface ClusterOptions {
  readonly name: string;
  readonly listen: HostPort;
  /** cluster addresses of other brokers; none for the first one, which waits for others to come */
  readonly peers: readonly string[];
}

export interface LeafOptions {
  /** addresses of a hub's leaf node listener: `nats-leaf://host:7422`, `tls://…` */
  readonly urls: readonly string[];
  /** for the hub: a .creds file, or one with an nkey user seed */
  readonly credentialsFile?: string | undefined;
}

/** What a leaf node shows its hub: nats-server reads the one from its file, and wants the other in its configuration. */
export type LeafLogin = { readonly kind: "creds"; readonly file: string } | {
  readonly kind: "nkey";
  readonly seed: string;
};

/** Where a leaf node belongs to. Its streams are there: it has no JetStream of its own. */
export interface Hub {
  readonly urls: readonly string[];
  readonly login?: LeafLogin | undefined;
  /** JetStream domain of the hub, to which all JetStream requests are sent on */
  readonly domain: string;
}

export interface Configuration {
  readonly serverName: string;
  readonly listen: HostPort;
  readonly publicKey: string;
  readonly cluster?: (ClusterOptions & { readonly secret: string }) | undefined;
  readonly hub?: Hub | undefined;
  /** where leaf nodes of others connect */
  readonly leafListen?: HostPort | undefined;
}

/** JSON's strings are strings of this format too. */
const quoted = JSON.stringify;

export function configurationText(files: BrokerFiles, wanted: Configuration): string {
  const lines = [
    "# Written by Marmot at each start: changes are lost.",
    `server_name: ${quoted(wanted.serverName)}`,
    `listen: ${quoted(hostPort(wanted.listen))}`,
    `pid_file: ${quoted(files.pid)}`,
    `ports_file_dir: ${quoted(files.folder)}`,
    `log_file: ${quoted(files.log)}`,
    `log_size_limit: ${LOG_SIZE_BYTES}`,
    `log_max_num: ${LOG_FILES}`,
    `write_deadline: ${quoted(WRITE_DEADLINE)}`,
    "authorization {",
    `  users: [ { nkey: ${quoted(wanted.publicKey)} } ]`,
    "}",
  ];
  if (wanted.hub === undefined) {
    // JetStream otherwise syncs every two minutes, and a power cut takes what it has acknowledged since.
    lines.push("jetstream {", `  store_dir: ${quoted(files.folder)}`, "  sync_interval: always");
    lines.push(`  max_file_store: ${STORE_LIMIT}`);
    // Leaf nodes reach a JetStream by the name of its domain only.
    if (wanted.leafListen !== undefined) lines.push(`  domain: ${LEAF_DOMAIN}`);
    lines.push("}");
  }
  if (wanted.cluster !== undefined) lines.push(...clusterLines(wanted.cluster));
  if (wanted.hub !== undefined || wanted.leafListen !== undefined) lines.push(...leafLines(wanted));
  return `${lines.join("\n")}\n`;
}

function clusterLines(cluster: ClusterOptions & { secret: string }): string[] {
  // A cluster of JetStream servers needs a route; the first broker's leads to itself, which does no harm.
  const peers = cluster.peers.length > 0 ? cluster.peers : [`nats-route://${hostPort(reachable(cluster.listen))}`];
  const routes = peers.map((peer) => quoted(routeUrl(peer, cluster.secret)));
  return [
    "cluster {",
    `  name: ${quoted(cluster.name)}`,
    `  listen: ${quoted(hostPort(cluster.listen))}`,
    `  write_deadline: ${quoted(ROUTE_WRITE_DEADLINE)}`,
    "  authorization {",
    `    user: ${quoted(CLUSTER_USER)}`,
    `    password: ${quoted(cluster.secret)}`,
    "  }",
    `  routes: [ ${routes.join(", ")} ]`,
    // Each broker has a user of its own, so clients must not be sent to another one.
    "  no_advertise: true",
    "}",
  ];
}

function routeUrl(peer: string, secret: string): string {
  const shown = withoutUserInfo(peer);
  if (/^tls:/i.test(peer)) {
    throw new MarmotError(
      `Cannot use the cluster address ${shown}: embedded brokers have no TLS between them. Connect them through a VPN, ` +
        "or run NATS servers with TLS and name them with --nats-url.",
      EXIT.usage,
    );
  }
  const rest = shown.replace(/^[a-z-]+:\/\//i, "").replace(/\/+$/, "");
  if (shown !== peer) return `nats-route://${peer.replace(/^[a-z-]+:\/\//i, "").replace(/\/+$/, "")}`;
  return `nats-route://${CLUSTER_USER}:${secret}@${rest}`;
}

function leafLines({ hub, leafListen }: Configuration): string[] {
  const lines = ["leafnodes {"];
  if (leafListen !== undefined) lines.push(`  listen: ${quoted(hostPort(leafListen))}`);
  if (hub !== undefined) {
    lines.push("  remotes: [", "    {", `      urls: [ ${hub.urls.map((url) => quoted(url)).join(", ")} ]`);
    if (hub.login?.kind === "creds") lines.push(`      credentials: ${quoted(hub.login.file)}`);
    if (hub.login?.kind === "nkey") lines.push(`      nkey: ${quoted(hub.login.seed)}`);
    lines.push("    }", "  ]");
  }
  lines.push("}");
  // Clients here speak to JetStream as if it were this server's; key-value buckets are written without its prefix.
  const api = hub === undefined ? "" : `$JS.${hub.domain}.API`;
  const mappings = [["$JS.API.>", `${api}.>`], ["$KV.>", `${api}.$KV.>`]].map((pair) =>
    pair.map((name) => quoted(name))
  );
  if (hub !== undefined) lines.push("mappings {", ...mappings.map((pair) => `  ${pair.join(": ")}`), "}");
  return lines;
}

export function hostPort({ host, port }: HostPort): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Where a client on this machine reaches what listens there: an address, not "all of them". */
export function reachable({ host, port }: HostPort): HostPort {
  if (host === "0.0.0.0" || host === "") return { host: "127.0.0.1", port };
  return host === "::" ? { host: "::1", port } : { host, port };
}
