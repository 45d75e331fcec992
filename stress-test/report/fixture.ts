import type { Usage } from "../measure/cgroups.ts";
import type { Timed } from "../measure/statistics.ts";
import type { Sample } from "../measure/usage.ts";
import type { Page } from "./page.ts";

/** A made-up run of the contest's 205 s with every kind of measurement, for tests of the charts. */
export function contestPage(): Page {
  const startMs = Date.UTC(2026, 10, 22);
  const requests: Timed[] = [];
  let seed = 1;
  const random = () => {
    seed = (seed * 48271) % 2147483647; // Park and Miller's generator gives the same page every time
    return seed / 2147483647;
  };
  const rate = (from: number, to: number, s: number) => (s < 25 ? 2 : from + ((to - from) * (s - 25)) / 180);
  const kinds = {
    create: [600, 3],
    read: [500, 0.8],
    search: [100, 2],
    "search without t": [40, 0.6],
  } as const;
  for (const [kind, [peak, typicalMs]] of Object.entries(kinds)) {
    for (let s = 0; s < 205; s++) {
      const count = Math.round(rate(6, peak, s) / 8); // an eighth of the requests show the same shapes
      for (let i = 0; i < count; i++) {
        const slow = random() < 0.02 ? 10 + 40 * random() : 1;
        const ms = typicalMs * (0.6 + random()) * slow * (1 + s / 205);
        requests.push({ kind, startMs: startMs + 1000 * (s + random()), ms, failed: random() < 0.0002 });
      }
    }
  }
  // CPUs, MiB, and the share in use.
  const limits = {
    nginx: [0.25, 64, 0.7],
    api1: [0.33, 256, 1],
    api2: [0.33, 256, 0.9],
    db: [0.59, 512, 0.5],
  } as const;
  const samples: Sample[] = Array.from({ length: 206 }, (_, s) => {
    const work = s < 25 ? s / 200 : 0.125 + ((s - 25) / 180) ** 2 * 40;
    const services = Object.entries(limits).map(([name, [cpuLimit, mebibytes, busy]], index) => {
      const cpuS = work * cpuLimit * busy;
      const workingSet = 18 + 10 * index + s / 10;
      const usage: Usage = {
        userS: cpuS,
        systemS: cpuS,
        throttledS: 0,
        memoryBytes: (workingSet + 2) * 2 ** 20,
        workingSetBytes: workingSet * 2 ** 20,
        peakBytes: null,
        cpuLimit,
        memoryLimitBytes: mebibytes * 2 ** 20,
      };
      return [name, usage] as const;
    });
    const statements = { insert: [20, 0.3], find: [22, 0.1], search: [9, 0.01] } as const;
    const batches = Object.entries(statements).flatMap(([kind, [perSecond, more]]) => [
      [`pessoas_batch_statements_total{kind="${kind}"}`, s * perSecond],
      [`pessoas_batch_items_total{kind="${kind}"}`, s * perSecond + s * s * more],
    ]);
    const told = (share: number) => ({
      pessoas_cache_hits_total: Math.floor(s * s * share),
      pessoas_cache_misses_total: Math.floor(s * s * 0.5),
      ...Object.fromEntries(batches),
    });
    return {
      atMs: startMs + 1000 * s,
      services: Object.fromEntries(services),
      metrics: { api1: told(0.52), api2: told(0.47) },
    };
  });
  return {
    title: "Contest load",
    at: new Date(startMs).toISOString(),
    machine: "2 CPUs (made up), 8 GiB, kernel 0",
    command: "./stress-test/run-test.sh --seed 1 --project pessoas GATLING_DIR",
    runs: [
      {
        title: "Contest load",
        passed: true,
        problems: [],
        facts: [
          ["persons stored", "46,123 of 46,123"],
          ["failed requests", "0 of 114,991"],
          ["read back", "46,123: 0 lost, 0 wrong"],
          ["requests per CPU-second", "1,234"],
        ],
        requests,
        samples,
      },
    ],
  };
}
