import { cpus, release, totalmem } from "node:os";

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
