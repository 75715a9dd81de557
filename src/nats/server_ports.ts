/** Which address the embedded broker can listen on, and who is there already. */
import { connect, createServer } from "node:net";
import * as v from "valibot";
import { type HostPort, reachable } from "./server_configuration.ts";

const GREETING_TIMEOUT_MS = 500;
const GREETING_LIMIT = 65_536;

/** "free", or why not: the code of the system's error, such as EADDRINUSE, EACCES, EADDRNOTAVAIL. */
export async function probePort({ host, port }: HostPort): Promise<string> {
  const server = createServer();
  return await new Promise((resolve) => {
    server.once("error", (error) => resolve("code" in error ? String(error.code) : error.message));
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve("free")));
  });
}

/** A port of `host` that nobody listens on at the moment. */
export async function freePort(host: string): Promise<number> {
  const server = createServer();
  return await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host, port: 0 }, () => {
      const address = server.address();
      server.close(() => {
        if (address === null || typeof address === "string") reject(new Error(`no free port on ${host}`));
        else resolve(address.port);
      });
    });
  });
}

/** Who listens there, in words: a NATS server tells its name when one connects. */
export async function portHolder(address: HostPort): Promise<string> {
  const greeting = await readGreeting(address);
  if (greeting === undefined) return "another program";
  const name = greeting.server_name ?? "unknown";
  const kind = name.startsWith("marmot-") ? "the embedded broker of another Marmot" : "a NATS server";
  return `${kind} (${name}, version ${greeting.version ?? "unknown"})`;
}

const greetingSchema = v.object({
  server_name: v.optional(v.string()),
  version: v.optional(v.string()),
  /** of JetStream; told to leaf nodes */
  domain: v.optional(v.string()),
});
export type Greeting = v.InferOutput<typeof greetingSchema>;

/** What a NATS server says of itself to whoever connects; undefined when nobody does, or it is something else. */
export async function readGreeting(address: HostPort): Promise<Greeting | undefined> {
  const info = /^INFO (\{.*\})\s*\r\n/.exec(await firstWords(reachable(address)))?.[1];
  try {
    return info === undefined ? undefined : v.parse(greetingSchema, JSON.parse(info));
  } catch {
    return undefined;
  }
}

function firstWords({ host, port }: HostPort): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    let words = "";
    const end = () => {
      socket.destroy();
      resolve(words);
    };
    const timer = setTimeout(end, GREETING_TIMEOUT_MS);
    socket.on("data", (data) => {
      words += String(data);
      if (words.includes("\n") || words.length > GREETING_LIMIT) end();
    });
    socket.once("error", end);
    socket.once("close", () => {
      clearTimeout(timer);
      end();
    });
  });
}
