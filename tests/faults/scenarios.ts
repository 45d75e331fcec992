import { dlopen, ptr } from "bun:ffi";
import assert from "node:assert/strict";
import { closeSync, openSync } from "node:fs";
import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { $ } from "bun";
import type { Random } from "../../stress-test/data/payloads.ts";
import type { Body, Outcome } from "../../stress-test/load/journal.ts";
import { client } from "../helpers/requests.ts";
import type { Obeyed, Order, Step } from "../helpers/silent-proxy.ts";
import { type Service, services, type Topology } from "../helpers/topology.ts";

export type Context = {
  topology: Topology;
  random: Random;
  /** Aborted when the run is, or when the round takes too long. */
  signal: AbortSignal;
  /** Sends one more create, which is audited like the load. */
  create(change?: Partial<Body>): Promise<Outcome>;
};
/** Prepares a strike before the random moment; resolves with the strike. */
type Prepare = (context: Context) => Promise<() => Promise<void>>;
/** Devices of this machine that a topology needs; `remove` undoes them. */
type Surroundings = { env: Record<string, string>; remove(): Promise<void> };

export type Scenario = {
  name: string;
  /** A compose file of this folder that changes the topology. */
  override?: string;
  surroundings?: () => Promise<Surroundings>;
  /** Every create must succeed. */
  answersAll?: boolean;
  /** The longest allowed time without an acknowledged create. */
  mostGapMs?: number;
  prepare: Prepare;
};

const instances = ["api1", "api2"] as const;
const frozenS = 5;
const stalledMs = 2500; // longer than DB_TIMEOUT_MS, shorter than twice that
const fullMs = 4000;
const hourS = 3600;
// A silent connection is replaced within DB_TIMEOUT_MS and a second; 2.5 s are for a busy machine.
const recoveryMs = 1500 + 1000 + 2500;
const askEveryMs = 200;
const backlogMs = 10_000; // the time to work off queued creates

export const scenarios: Scenario[] = [
  { name: "kill-api", prepare: kills(({ random }) => [random.pick(instances)]) },
  { name: "kill-both-apis", prepare: kills(() => instances) },
  { name: "kill-postgres", prepare: kills(() => ["db"]) },
  { name: "kill-nginx", prepare: kills(() => ["nginx"]) },
  { name: "kill-everything", prepare: kills(() => services) },
  { name: "freeze-postgres", prepare: freezePostgres },
  {
    name: "restart-api",
    answersAll: true,
    prepare: restarts(({ random }) => random.pick(instances)),
  },
  { name: "restart-nginx", prepare: restarts(() => "nginx") },
  { name: "restart-postgres", prepare: restarts(() => "db") },
  { name: "freeze-network", override: "network.yml", prepare: freezeNetwork },
  { name: "cut-network", override: "network.yml", prepare: cutNetwork },
  { name: "silence-network", override: "network.yml", mostGapMs: recoveryMs, prepare: silenceNetwork },
  { name: "jump-clock-api", override: "clock.yml", answersAll: true, prepare: jumps("api") },
  { name: "jump-clock-postgres", override: "clock.yml", prepare: jumps("db") },
  { name: "full-disk", override: "full-disk.yml", prepare: fillDisk },
  {
    name: "stall-disk",
    override: "device.yml",
    surroundings: loopDevice,
    answersAll: true,
    prepare: stallDisk,
  },
  { name: "power-loss", override: "device.yml", surroundings: loopDevice, prepare: cutPower },
];

/** kill -9 from outside the containers, as by the kernel's OOM killer. Docker restarts them. */
function kills(which: (context: Context) => readonly Service[]): Prepare {
  return async (context) => {
    // The first process of a container takes all others with it.
    const pids = await Promise.all(which(context).map((service) => firstProcess(context.topology, service)));
    return () => onHost(context.topology, `kill -9 ${pids.join(" ")}`);
  };
}

function restarts(which: (context: Context) => Service): Prepare {
  return async (context) => async () => {
    await context.topology.compose("restart", which(context));
  };
}

/** SIGSTOP for every process of Postgres: connections stay open without answers. */
async function freezePostgres({ topology }: Context) {
  const listed = await topology.docker("top", await container(topology, "db"), "-eo", "pid");
  const pids = listed.match(/\d+/g)?.join(" ");
  // A backend may have ended meanwhile, the postmaster must not.
  const postmaster = await firstProcess(topology, "db");
  const each = (signal: string) => `kill -${signal} ${pids} 2>&-; kill -${signal} ${postmaster}`;
  return () => onHost(topology, `${each("STOP")} && sleep ${frozenS}; ${each("CONT")}`);
}

/** All connections to Postgres go silent and stay open. */
async function freezeNetwork({ topology }: Context) {
  const proxy = await firstProcess(topology, "proxy");
  return () => onHost(topology, `kill -STOP ${proxy} && sleep ${frozenS}; kill -CONT ${proxy}`);
}

/** Ends each connection to Postgres in the middle of an answer, also of a commit's, ten times. */
async function cutNetwork({ topology }: Context) {
  const proxy = await firstProcess(topology, "proxy");
  return () => onHost(topology, `for i in $(seq 10); do kill -USR2 ${proxy} && sleep 0.2 || exit; done`);
}

const statements: [sql: string, steps: Step[]][] = [
  ["insert into pessoas", ["parse", "bind", "execute", "half", "answered"]],
  ["from pessoas where id", ["parse", "bind", "execute", "half", "answered"]],
  ["busca like", ["parse", "bind", "execute", "half", "answered"]],
  ["select count", ["execute", "half", "answered"]],
  ["select 1 from pessoas", ["execute", "half", "answered"]],
];
const moments: Pick<Order, "at" | "sql" | "all">[] = [
  ...(["accept", "startup", "authentication", "before ready", "ready"] as const).map((at) => ({ at })),
  ...statements.flatMap(([sql, steps]) => steps.map((at) => ({ at, sql }))),
  ...Array.from({ length: 5 }, () => ({ at: "accept" as const, all: true })),
];

/** One connection to Postgres, or all, go silent at a random step of the protocol and stay open. */
async function silenceNetwork({ topology, random, signal, create }: Context) {
  const moment = random.pick(moments);
  const order: Order = {
    ...moment,
    nth: random.int(1, 3),
    pick: random.int(0, 999) / 1000,
    boundMs: recoveryMs,
  };
  const { get } = client(topology.url);
  const ask = `const request = { unix: "/tmp/control", method: "POST", body: Bun.argv.at(-1) };
    process.stdout.write(await (await fetch("http://x/", request)).text())`;
  const letter = () => String.fromCodePoint(random.int(0x4e00, 0x9dff));

  return async () => {
    let obeyed: Obeyed | undefined;
    const answer = topology
      .compose("exec", "-T", "proxy", "bun", "-e", ask, JSON.stringify(order))
      .then((text) => {
        obeyed = JSON.parse(text) as Obeyed;
      });
    // Sends statements of every kind to both instances until all silent connections are closed.
    const paths = ["/pessoas?t=abc", "/contagem-pessoas", "/readyz"];
    const others = async () => {
      const asked: Promise<unknown>[] = [];
      while (obeyed === undefined) {
        signal.throwIfAborted();
        for (const path of [`/pessoas/${crypto.randomUUID()}`, ...paths]) {
          asked.push(get(path).then((response) => response.arrayBuffer()));
        }
        asked.push(create({ nome: letter() + letter() }));
        await Promise.race([answer, Bun.sleep(askEveryMs)]);
      }
      await Promise.all(asked);
    };
    await Promise.all([answer, others()]);
    const { sql, silent, closed } = obeyed as unknown as Obeyed;
    const told = `silent at ${order.all ? "any step of all connections" : order.at}${sql && ` of "${sql.slice(0, 60)}"`}`;
    assert.equal(closed, silent, `${told}: ${silent - closed} of ${silent} connections are still open`);
    // nginx alternates between the instances.
    const ends = performance.now() + backlogMs;
    for (let inARow = 0; inARow < 10; ) {
      const { kind } = await create();
      inARow = kind === "acknowledged" ? inARow + 1 : 0;
      assert.ok(
        performance.now() < ends,
        `${told}: an instance still rejects creates ${backlogMs / 1000} s later`,
      );
    }
  };
}

/**
 * The clock of the instances or of Postgres jumps forwards and back by up to forty days, each time while creates wait
 * for a lock, within their deadline.
 */
function jumps(whose: "api" | "db"): Prepare {
  return async ({ topology, random }) => {
    const jumpsS = [hourS, -hourS, 24 * hourS, -40 * 24 * hourS].map((s) =>
      Math.round((s * random.int(500, 1000)) / 1000),
    );
    return async () => {
      for (const jumpS of [...jumpsS, 0]) {
        const told = await topology.sql(
          "begin; lock table pessoas in share mode",
          "select pg_sleep(0.3)",
          `\\! echo ${jumpS < 0 ? "" : "+"}${jumpS} >/clock/${whose}`,
          "select pg_sleep(0.3)",
          "commit",
          "select extract(epoch from clock_timestamp())",
        );
        if (whose === "db") {
          const aheadS = Number(told.trim()) - Date.now() / 1000;
          assert.ok(Math.abs(aheadS - jumpS) <= 2, `Postgres is ahead by ${aheadS} s and not by ${jumpS}`);
        } else await topology.compose("exec", "-T", "clock", "bun", "/await-clock.ts", String(jumpS));
      }
    };
  };
}

/** The disk is full: creates get 503 and reads succeed until there is room. */
async function fillDisk({ topology, signal, create }: Context) {
  const { get } = client(topology.url);
  const room = (command: string) => topology.compose("exec", "-T", "room", "sh", "-c", command);

  return async () => {
    const created = await create();
    assert.ok(created.kind === "acknowledged");
    const { apelido } = created.answer as { apelido: string };
    const reads = [
      [`/pessoas/${created.id}`, new RegExp(created.id)],
      [`/pessoas?t=${apelido}`, new RegExp(created.id)],
      ["/contagem-pessoas", / [1-9]\d*$/],
    ] as const;
    const isRefused = (outcome: Outcome) => outcome.kind === "unknown" && outcome.reason === "503";
    // After a checkpoint the WAL has recycled segments, so only the tables lack room and Postgres continues. Otherwise it
    // would restart until there is room.
    await topology.sql("select pg_switch_wal(); checkpoint");
    await room("cat /dev/zero >/data/ballast 2>&- || test -s /data/ballast");
    try {
      while (!isRefused(await create())) signal.throwIfAborted();
      const outcomes: Outcome[] = [];
      const ends = performance.now() + fullMs;
      while (performance.now() < ends) {
        signal.throwIfAborted();
        outcomes.push(await create());
        for (const [path, holds] of reads) {
          const response = await get(path);
          const told = `GET ${path} on a full disk: ${response.status} ${await response.text()}`;
          assert.ok(response.status === 200 && holds.test(told), told);
        }
      }
      // Persons that fit into an existing page rightly get 201, some of them after a vacuum.
      const others = outcomes.filter((outcome) => !isRefused(outcome) && outcome.kind !== "acknowledged");
      assert.deepEqual(others, [], "POST on a full disk: neither 503 nor 201");
      assert.ok(outcomes.some(isRefused), "POST on a full disk: never 503");
    } finally {
      await room("rm /data/ballast");
    }
  };
}

const deviceBytes = 512 * 2 ** 20;

async function loopDevice(): Promise<Surroundings> {
  if (process.platform !== "linux" || process.getuid?.() !== 0) throw new NotHere("needs root on Linux");
  const folder = await mkdtemp(join(tmpdir(), "pessoas-device-"));
  const file = join(folder, "disk");
  await writeFile(file, "");
  await truncate(file, deviceBytes);
  const owner = (await $`docker run --rm --entrypoint id postgres:18 -u postgres`.text()).trim();
  await $`mkfs.ext4 -q -E root_owner=${owner}:${owner} ${file}`;
  const device = (await $`losetup --find --show ${file}`.text()).trim();
  return {
    env: { DEVICE: device },
    async remove() {
      await $`losetup --detach ${device}`;
      await rm(folder, { recursive: true });
    },
  };
}

/** The disk stalls: no write of Postgres completes for a while, and none fails, so creates wait. */
async function stallDisk({ topology }: Context) {
  const folder = await dataFolder(topology);
  return async () => {
    await $`fsfreeze --freeze ${folder}`;
    try {
      await Bun.sleep(stalledMs);
    } finally {
      await $`fsfreeze --unfreeze ${folder}`;
    }
  };
}

/**
 * A power cut for the data: from one moment on nothing reaches the disk, and unflushed pages of the kernel are lost.
 * Then everything is killed. Postgres restarts on a file system that is mounted anew from the device.
 */
async function cutPower({ topology }: Context) {
  const folder = await dataFolder(topology);
  const pids = await Promise.all(services.map((service) => firstProcess(topology, service)));
  return async () => {
    shutDown(folder);
    for (const pid of pids) process.kill(pid, "SIGKILL");
  };
}

const dataFolder = ({ docker, project }: Topology) =>
  docker("volume", "inspect", "--format", "{{.Mountpoint}}", `${project}_data`);

const shutdownRequest = 0x8004587d; // EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32)
const withoutFlush = 2; // EXT4_GOING_FLAGS_NOLOGFLUSH

function shutDown(folder: string) {
  const { symbols, close } = dlopen("libc.so.6", {
    ioctl: { args: ["i32", "u64", "ptr"], returns: "i32" },
  });
  const file = openSync(folder, "r");
  const result = symbols.ioctl(file, shutdownRequest, ptr(new Uint32Array([withoutFlush])));
  closeSync(file); // an open file would prevent the unmount
  close();
  assert.equal(result, 0, "the file system does not know EXT4_IOC_SHUTDOWN");
}

/** The machine cannot run the scenario. */
export class NotHere extends Error {
  override name = "NotHere";
}

const container = (topology: Topology, service: Service | "proxy") =>
  topology.compose("ps", "--quiet", service);

/** The container's process id on the host. */
async function firstProcess(topology: Topology, service: Service | "proxy"): Promise<number> {
  const id = await container(topology, service);
  return Number(await topology.docker("inspect", "--format", "{{.State.Pid}}", id));
}

/** Runs a shell script that may signal every process of the machine, also when this process is aborted. */
async function onHost({ docker }: Topology, script: string): Promise<void> {
  await docker(
    ...["run", "--rm", "--pid=host", "--network=none", "--user=root", "--cap-drop=all", "--cap-add=kill"],
    ...["--entrypoint=sh", "postgres:18", "-c", script],
  );
}
