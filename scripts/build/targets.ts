/** The machines that a binary of Marmot is made for, as each tool names them. */
import { arch, platform } from "node:process";

export type RuntimeName = "deno" | "bun";

export interface Target {
  readonly name: string;
  /** undefined where Deno has no runtime for it */
  readonly deno?: string;
  readonly bun: string;
  readonly go: { readonly os: string; readonly arch: string };
  /** as node:process names them */
  readonly platform: string;
  readonly arch: string;
  /** musl instead of glibc */
  readonly musl?: boolean;
}

const LINUX_X64 = { platform: "linux", arch: "x64", go: { os: "linux", arch: "amd64" } } as const;
const LINUX_ARM64 = { platform: "linux", arch: "arm64", go: { os: "linux", arch: "arm64" } } as const;

export const TARGETS: readonly Target[] = [
  { name: "linux-x64", ...LINUX_X64, deno: "x86_64-unknown-linux-gnu", bun: "bun-linux-x64" },
  { name: "linux-arm64", ...LINUX_ARM64, deno: "aarch64-unknown-linux-gnu", bun: "bun-linux-arm64" },
  { name: "linux-x64-musl", ...LINUX_X64, bun: "bun-linux-x64-musl", musl: true },
  { name: "linux-arm64-musl", ...LINUX_ARM64, bun: "bun-linux-arm64-musl", musl: true },
  {
    name: "macos-x64",
    platform: "darwin",
    arch: "x64",
    go: { os: "darwin", arch: "amd64" },
    deno: "x86_64-apple-darwin",
    bun: "bun-darwin-x64",
  },
  {
    name: "macos-arm64",
    platform: "darwin",
    arch: "arm64",
    go: { os: "darwin", arch: "arm64" },
    deno: "aarch64-apple-darwin",
    bun: "bun-darwin-arm64",
  },
  {
    name: "windows-x64",
    platform: "win32",
    arch: "x64",
    go: { os: "windows", arch: "amd64" },
    deno: "x86_64-pc-windows-msvc",
    bun: "bun-windows-x64",
  },
];

/** @param name undefined for this machine @throws Error that lists the names */
export function findTarget(name: string | undefined): Target {
  const found = TARGETS.find((target) => name === undefined ? isNative(target) : target.name === name);
  if (found !== undefined) return found;
  const names = TARGETS.map((target) => target.name).join(", ");
  throw new Error(
    `Cannot build for ${name ?? `${platform} ${arch}`}: it is no target. Give --target with one of ${names}.`,
  );
}

/** Whether this machine runs what is built for it; a musl binary runs on its own kind of Linux only. */
export function isNative(target: Target): boolean {
  return target.platform === platform && target.arch === arch && target.musl !== true;
}
