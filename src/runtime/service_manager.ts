/**
 * Tells systemd how the service is doing. Neither runtime can send to a Unix datagram socket, so systemd's own program does
 * it; a unit needs NotifyAccess=all for that.
 */
import { execFile } from "node:child_process";
import { env } from "node:process";
import type { Log } from "../runtime.ts";

const NOTIFY_TIMEOUT_MS = 10_000;

export interface ServiceManager {
  /** The node captures; `status` is one line for `systemctl status`. */
  ready(status: string): void;
  stopping(): void;
}

/** Does nothing where no service manager waits to be told (NOTIFY_SOCKET). */
export function serviceManager(log: Log): ServiceManager {
  const socket = env.NOTIFY_SOCKET;
  const tell = (...assignments: string[]) => {
    if (socket !== undefined && socket !== "") notify(socket, assignments, log);
  };
  return {
    ready: (status) => tell("READY=1", `STATUS=${status}`),
    stopping: () => tell("STOPPING=1", "STATUS=Stopping"),
  };
}

function notify(socket: string, assignments: readonly string[], log: Log): void {
  const failed = (error: unknown) => {
    log.warn("systemd could not be told; it needs its program systemd-notify in PATH for that", {
      reason: error instanceof Error ? error.message : String(error),
    });
  };
  const environment = { NOTIFY_SOCKET: socket, PATH: env.PATH ?? "/usr/bin:/bin" };
  // Deno throws some spawn errors at once instead of passing them to the callback.
  try {
    execFile("systemd-notify", assignments, { env: environment, timeout: NOTIFY_TIMEOUT_MS }, (error) => {
      if (error !== null) failed(error);
    });
  } catch (error) {
    failed(error);
  }
}
