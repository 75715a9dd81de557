/** Which address the embedded broker can listen on, and who is there already. */
import { connect, createServer } from "node:net";
import { type HostPort, reachable } from "./server_configuration.ts";

const GREETING_TIMEOUT_MS = 500;

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
  const greeting = await readGreeting(reachable(address));
  const info = /^INFO (\{.*\})/.exec(greeting)?.[1];
  if (info === undefined) return "another program";
  const field = (name: string) => new RegExp(`"${name}":"([^"]{1,100})"`).exec(info)?.[1] ?? "unknown";
  const name = field("server_name");
  const kind = name.startsWith("marmot-") ? "the embedded broker of another Marmot" : "a NATS server";
  return `${kind} (${name}, version ${field("version")})`;
}

function readGreeting({ host, port }: HostPort): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    const end = (text: string) => {
      socket.destroy();
      resolve(text);
    };
    socket.setTimeout(GREETING_TIMEOUT_MS, () => end(""));
    socket.once("data", (data) => end(String(data)));
    socket.once("error", () => end(""));
    socket.once("close", () => end(""));
  });
}
