import { readdir, readFile } from "node:fs/promises";
import { cpus, release, totalmem } from "node:os";
import { join } from "node:path";

export type Machine = { cpus: number; model: string; memoryBytes: number; kernel: string };

/** This machine. */
export function describeMachine(): Machine {
  return {
    cpus: cpus().length,
    model: cpus()[0]?.model.trim() ?? "",
    memoryBytes: totalmem(),
    kernel: release(),
  };
}

/** "2 CPUs (model), 8 GiB" */
export function nameMachine({ cpus, model, memoryBytes, kernel }: Machine): string {
  return `${cpus} CPUs (${model || "model unknown"}), ${Math.round(memoryBytes / 2 ** 30)} GiB, kernel ${kernel}`;
}

/** CPU-seconds of the docker-proxy processes of a published port; 0 if there are none. */
export async function proxySeconds(port: number): Promise<number> {
  let ticks = 0;
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    const read = (file: string) => readFile(join("/proc", pid, file), "utf8").catch(() => ""); // it may have ended
    const command = await read("cmdline");
    if (!command.includes("docker-proxy") || !command.includes(`-host-port\0${port}\0`)) continue;
    const fields = (await read("stat")).split(") ").at(-1)?.split(" ") ?? [];
    const [user = 0, system = 0] = fields.slice(11, 13).map(Number);
    ticks += user + system;
  }
  return ticks / 100;
}

/** CPU-seconds in which this machine was busy since its start. */
export function busySeconds(): number {
  return cpus().reduce((all, { times: { user, nice, sys, irq } }) => all + user + nice + sys + irq, 0) / 1000;
}
