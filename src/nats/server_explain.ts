/** What a nats-server says, in words that tell the user of Marmot what to do. */
import { EXIT, MarmotError } from "../errors.ts";
import { type HostPort, hostPort } from "./server_configuration.ts";
import type { BrokerFiles } from "./server_files.ts";
import type { ServerLine } from "./server_log.ts";

const ADDRESS_TAKEN = /address already in use|only one usage of each socket/i;

/** The clients' address was free when it was chosen, and then it was not. */
export class AddressTakenError extends MarmotError {}

export function explainStart(
  reason: string,
  files: BrokerFiles,
  listen: HostPort,
  cluster: HostPort | undefined,
): MarmotError {
  const say = (state: string, advice: string) => `Cannot start the embedded broker: ${state}. ${advice}`;
  if (ADDRESS_TAKEN.test(reason)) {
    const isCluster = cluster !== undefined && (reason.includes(`:${cluster.port}`) || /rout/i.test(reason));
    const [holder, flag] = isCluster ? [cluster, "--cluster-addr"] : [listen, "--listen"];
    const message = say(
      `another program listens on ${hostPort(holder)}`,
      `Give a free address with ${flag} HOST:PORT.`,
    );
    return isCluster ? new MarmotError(message, EXIT.broker) : new AddressTakenError(message, EXIT.broker);
  }
  return new MarmotError(say(...startFailure(reason, files)), EXIT.broker);
}

function startFailure(reason: string, files: BrokerFiles): [state: string, advice: string] {
  if (/no space left|disk quota/i.test(reason)) {
    return [`the disk of ${files.folder} is full`, "Free some space there and start again."];
  }
  if (/permission denied|read-only file system/i.test(reason)) {
    return [
      `nats-server may not write ${files.folder} (${reason})`,
      "Make that folder and all in it writable for this user.",
    ];
  }
  return [`nats-server says: ${reason}`, `See ${files.log}.`];
}

export interface Note {
  readonly level: "debug" | "warn" | "error";
  readonly message: string;
}

/** How a line of the server's log is told in Marmot's; undefined: not at all. */
export function noteworthy(line: ServerLine, files: BrokerFiles): Note | undefined {
  if (/\brid:\d+\b.*(authentication|authorization)/i.test(line.text)) {
    return {
      level: "error",
      message: "Another broker of the cluster has another secret. " +
        `Copy ${files.clusterSecret} of a node of the cluster to this one, or this one's to the new node`,
    };
  }
  if (line.level === "error") return { level: "warn", message: "The embedded broker reports a problem" };
  return line.level === "warn" ? { level: "debug", message: "The embedded broker warns" } : undefined;
}
