/** NATS addresses as users write them: parsed once, and from then on without the password they may carry. */
import { EXIT, MarmotError } from "../errors.ts";

const DEFAULT_PORT = 4222;
const EXAMPLE = "Give it as nats://host:4222 or, to insist on TLS, tls://host:4222.";

export interface NatsAddress {
  /** `host:port`, without user and password: fit for logs */
  readonly hostPort: string;
  /** written as tls://… */
  readonly tls: boolean;
  /** what stood before the @ */
  readonly user?: string;
  readonly password?: string;
}

/** @returns the text without what stands between `//` (or the start) and the last `@` */
export function withoutUserInfo(url: string): string {
  return url.replace(/^([a-z]+:\/\/)?.*@/is, "$1");
}

/** @throws MarmotError (usage) that shows the address without user and password */
export function parseNatsAddress(text: string): NatsAddress {
  const trimmed = text.trim();
  const shown = JSON.stringify(withoutUserInfo(trimmed));
  const refuse = (state: string): never => {
    throw new MarmotError(`Cannot use the NATS address ${shown}: ${state}. ${EXAMPLE}`, EXIT.usage);
  };
  const full = /^[a-z][a-z0-9+.-]*:\/\//i.test(trimmed) ? trimmed : `nats://${trimmed}`;
  if (!/^(nats|tls):\/\//i.test(full)) return refuse("only nats:// and tls:// are known");
  if (!URL.canParse(full)) return refuse("it is no URL");
  const url = new URL(full);
  if (url.hostname === "" || /[\s%]/.test(url.hostname)) return refuse("it names no host");
  if ((url.pathname !== "" && url.pathname !== "/") || url.search !== "" || url.hash !== "") {
    return refuse("it goes on after host and port");
  }
  const port = url.port === "" ? DEFAULT_PORT : Number(url.port);
  if (port === 0) return refuse("port 0 is none");
  const address = { hostPort: `${url.hostname}:${port}`, tls: url.protocol === "tls:" };
  if (url.username === "" && url.password === "") return address;
  try {
    const user = decodeURIComponent(url.username);
    return url.password === ""
      ? { ...address, user }
      : { ...address, user, password: decodeURIComponent(url.password) };
  } catch {
    return refuse("its user or password has a % that is not followed by two hex digits");
  }
}
