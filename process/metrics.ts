import { collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { Cache } from "../cache.ts";
import type { Db } from "../db.ts";

export type Metrics = {
  contentType: string;
  /** Prometheus' text format. */
  render(): Promise<string>;
  /** Counts a request of `route` that was answered with `status` after `seconds`. */
  observe(route: string, status: number, seconds: number): void;
};

const notedAtOnce = 256; // a quarter of a millisecond's work

/** What the server counts, and what the cache, the insert queue and the process say of themselves when asked. */
export function metrics(db: Db, cache: Cache): Metrics {
  const registry = new Registry();
  const registers = [registry];
  // Coarse: the default looks at the event loop a hundred times a second, also when there is nothing to do.
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 250 });
  // V8's heap spaces, which Bun has none of: made up from a walk through the whole heap, half of the cost of a scrape.
  for (const of of ["total", "used", "available"]) {
    registry.removeSingleMetric(`nodejs_heap_space_size_${of}_bytes`);
  }

  const requests = new Histogram({
    name: "pessoas_http_request_duration_seconds",
    help: "Time from a request to its answer",
    labelNames: ["route", "status"],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5],
    registers,
    collect: countNoted,
  });

  // Counted many at once: between two requests the processor has forgotten how, and prom-client does a lot for each.
  const routes: string[] = [];
  const statuses = new Uint16Array(notedAtOnce);
  const times = new Float64Array(notedAtOnce);

  function note(route: string, status: number, seconds: number) {
    const at = routes.push(route) - 1;
    statuses[at] = status;
    times[at] = seconds;
    if (routes.length === notedAtOnce) countNoted();
  }

  function countNoted() {
    for (const [i, route] of routes.entries()) {
      requests.observe({ route, status: statuses[i] as number }, times[i] as number);
    }
    routes.length = 0;
  }

  /** A value that is read when somebody asks. Prometheus takes a gauge that only grows for a counter. */
  function gauge(name: string, help: string, read: () => number) {
    new Gauge({
      name: `pessoas_${name}`,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  }
  gauge("cache_hits_total", "Reads answered from the cache", () => cache.stats().hits);
  gauge("cache_misses_total", "Reads that had to ask the database", () => cache.stats().misses);
  gauge("cache_entries", "Persons in the cache", () => cache.stats().entries);
  gauge("cache_bytes", "Memory held by the cache", () => cache.stats().bytes);

  gauge("memory_persons", "Persons whose search text is in memory", () => db.memoryStats().persons);
  gauge("memory_bytes", "Bytes of these texts", () => db.memoryStats().bytes);

  if (db.replicaStats() !== undefined) {
    const read = (name: "asked" | "found" | "up") => () => Number(db.replicaStats()?.[name]);
    gauge(
      "replica_up",
      "1 when the replica is asked, 0 when it is left out for it does not answer",
      read("up"),
    );
    gauge("replica_asked_total", "Reads that the replica was asked for", read("asked"));
    gauge("replica_found_total", "Reads that it answered; the others asked the primary, too", read("found"));
  }

  function groupGauge(
    name: string,
    help: string,
    read: (stats: ReturnType<Db["stats"]>["insert"]) => number,
  ) {
    new Gauge({
      name: `pessoas_group_${name}`,
      help,
      labelNames: ["kind"],
      registers,
      collect() {
        for (const [kind, stats] of Object.entries(db.stats())) this.set({ kind }, read(stats));
      },
    });
  }
  groupGauge("statements_total", "Statements sent, each for one or more requests", (s) => s.statements);
  groupGauge("items_total", "Requests that these statements served", (s) => s.items);
  groupGauge("waiting", "Requests that wait for a statement", (s) => s.waiting);
  groupGauge("in_flight", "Requests whose statement is at the database", (s) => s.inFlight);
  groupGauge(
    "oldest_seconds",
    "Age of the oldest request that waits or is in flight",
    (s) => s.oldestMs / 1000,
  );

  groupGauge("connections", "Connections to the database that there may be", (s) => s.lanes);
  groupGauge("connections_busy", "Connections with a statement in flight", (s) => s.busy);

  return {
    contentType: registry.contentType,
    render: () => registry.metrics(),
    observe: note,
  };
}
