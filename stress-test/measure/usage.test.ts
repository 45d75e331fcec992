import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findCgroups, readCpuSeconds, readUsage, type Usage } from "./cgroups.ts";
import { findSocket, parseMetrics, peakOfAll, readMetrics, type Sample, sumUsage } from "./usage.ts";

const folder = mkdtempSync(join(tmpdir(), "usage test "));
afterAll(() => rmSync(folder, { recursive: true }));

describe("usage", () => {
  const write = (path: string, text: string) => {
    mkdirSync(join(folder, path, ".."), { recursive: true });
    writeFileSync(join(folder, path), text);
  };
  // The kernel writes a space in a path as \040.
  const mountPoint = (path: string) => join(folder, path).replaceAll(" ", "\\040");

  test("cgroup v1", () => {
    write(
      "v1/self/mountinfo",
      ["cpu", "cpuacct", "memory"]
        .map((name) => `1 2 0:3 / ${mountPoint(`fs1/${name}`)} rw - cgroup cgroup rw,${name}\n`)
        .join(""),
    );
    write("v1/7/cgroup", "4:memory:/docker/a\n3:cpuacct:/docker/a\n2:cpu:/docker/a\n0::/docker/a\n");
    write("fs1/cpuacct/docker/a/cpuacct.stat", "user 250\nsystem 50\n");
    write("fs1/cpuacct/docker/a/cpuacct.usage", "3004005006\n");
    write("fs1/cpu/docker/a/cpu.stat", "nr_periods 9\nnr_throttled 3\nthrottled_time 1500000000\n");
    write("fs1/cpu/docker/a/cpu.cfs_quota_us", "50000\n");
    write("fs1/cpu/docker/a/cpu.cfs_period_us", "100000\n");
    write("fs1/memory/docker/a/memory.stat", "inactive_file 1\ntotal_inactive_file 1000\n");
    write("fs1/memory/docker/a/memory.usage_in_bytes", "5000\n");
    write("fs1/memory/docker/a/memory.max_usage_in_bytes", "9000\n");
    write("fs1/memory/docker/a/memory.limit_in_bytes", "9223372036854771712\n");
    const groups = findCgroups(7, join(folder, "v1"));
    expect(readCpuSeconds(groups)).toBe(3.004005006);
    expect(readUsage(groups)).toEqual({
      userS: 2.5,
      systemS: 0.5,
      throttledS: 1.5,
      memoryBytes: 5000,
      workingSetBytes: 4000,
      peakBytes: 9000,
      cpuLimit: 0.5,
      memoryLimitBytes: null,
    });
  });

  test("cgroup v2, and a kernel without memory.peak", () => {
    write("v2/self/mountinfo", `1 2 0:3 / ${mountPoint("fs2")} rw - cgroup2 cgroup2 rw\n`);
    write("v2/7/cgroup", "0::/system.slice/docker-a.scope\n");
    const dir = "fs2/system.slice/docker-a.scope";
    write(
      `${dir}/cpu.stat`,
      "usage_usec 3004005\nuser_usec 2500000\nsystem_usec 500000\nthrottled_usec 1500000\n",
    );
    write(`${dir}/cpu.max`, "150000 100000\n");
    write(`${dir}/memory.stat`, "anon 1\ninactive_file 1000\n");
    write(`${dir}/memory.current`, "5000\n");
    write(`${dir}/memory.max`, "1048576\n");
    const expected = { userS: 2.5, systemS: 0.5, throttledS: 1.5, memoryBytes: 5000, workingSetBytes: 4000 };
    const groups = findCgroups(7, join(folder, "v2"));
    expect(readCpuSeconds(groups)).toBe(3.004005);
    expect(readUsage(groups)).toEqual({
      ...expected,
      peakBytes: null,
      cpuLimit: 1.5,
      memoryLimitBytes: 1048576,
    });
    write(`${dir}/cpu.max`, "max 100000\n");
    write(`${dir}/memory.max`, "max\n");
    write(`${dir}/memory.peak`, "9000\n");
    expect(readUsage(groups)).toEqual({
      ...expected,
      peakBytes: 9000,
      cpuLimit: null,
      memoryLimitBytes: null,
    });
  });

  test("sums between the first and last sample, through a restart", () => {
    const used = (userS: number, memoryBytes: number): Usage => ({
      userS,
      systemS: 1,
      throttledS: 0,
      memoryBytes,
      workingSetBytes: memoryBytes / 2,
      peakBytes: null,
      cpuLimit: 0.5,
      memoryLimitBytes: null,
    });
    const samples: Sample[] = [
      { atMs: 0, services: { api: used(10, 100), db: used(5, 10) } },
      { atMs: 1, services: { api: used(12, 300) } },
      { atMs: 2, services: { api: used(1, 200), db: used(6, 20) } },
    ];
    expect(sumUsage(samples)).toMatchObject({
      api: { userS: 3, systemS: 1, peakBytes: 300, peakWorkingSetBytes: 150, restarts: 1 },
      db: { userS: 1, systemS: 0, peakBytes: 20, restarts: 0 },
    });
    expect([peakOfAll(samples), peakOfAll([])]).toEqual([150, null]); // not 150 + 10, which are of different moments
  });
});

describe("metrics", () => {
  test("only the metrics that the report needs are read from the text", () => {
    const text =
      '# HELP pessoas_cache_hits_total x\npessoas_cache_hits_total 3\npessoas_batch_waiting{kind="find"} 2.5\n' +
      "process_cpu_user_seconds_total 1e-3\nnodejs_version_info 1\n" +
      'pessoas_http_request_duration_seconds_bucket{le="1",route="x"} 4\n';
    expect(parseMetrics(text)).toEqual({
      pessoas_cache_hits_total: 3,
      'pessoas_batch_waiting{kind="find"}': 2.5,
      process_cpu_user_seconds_total: 0.001,
    });
  });

  test("a server without /metrics gives undefined", async () => {
    using server = Bun.serve({ port: 0, fetch: () => new Response("no", { status: 404 }) });
    expect(await readMetrics(server.url.href)).toBeUndefined();
    expect(await readMetrics("http://localhost", "/nowhere/api.sock")).toBeUndefined();
  });

  test("a container's socket is found through its mounts", () => {
    const mounts = [
      { Source: "/volumes/pg", Destination: "/run/pg" },
      { Source: "/volumes/api", Destination: "/run/api" },
    ];
    expect(findSocket(["A=1", "SOCKET=/run/api/api1.sock"], mounts)).toBe("/volumes/api/api1.sock");
    expect(findSocket(["SOCKET=/tmp/api1.sock"], mounts)).toBeUndefined();
    expect(findSocket(["A=1"], mounts)).toBeUndefined();
    expect(findSocket(null, null)).toBeUndefined();
  });
});
