import { collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { BatchStats } from "../database/batch.ts";

export type Metrics = ReturnType<typeof metrics>;

const blockSize = 256; // a quarter of a millisecond's work

type Sources = {
  cache(): { hits: number; misses: number; entries: number; bytes: number };
  memory(): { persons: number; bytes: number };
  /** By kind of statement. */
  batches(): Record<string, BatchStats>;
  /** Undefined without a replica. */
  replica(): { asked: number; found: number; up: boolean } | undefined;
};

export function metrics({ cache, memory, batches, replica }: Sources) {
  const registry = new Registry();
  const registers = [registry];
  // 250 ms: the default wakes an idle process a hundred times a second.
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 250 });
  // Bun has no heap spaces, and computing these takes half of a scrape.
  for (const of of ["total", "used", "available"]) {
    registry.removeSingleMetric(`nodejs_heap_space_size_${of}_bytes`);
  }

  const requests = new Histogram({
    name: "pessoas_http_request_duration_seconds",
    help: "Time from a request to its answer",
    labelNames: ["route", "status"],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5],
    registers,
    collect: record,
  });

  // Recorded in blocks of 256: one at a time runs in cold caches.
  const routes: string[] = [];
  const statuses = new Uint16Array(blockSize);
  const times = new Float64Array(blockSize);

  function observe(route: string, status: number, seconds: number) {
    const at = routes.push(route) - 1;
    statuses[at] = status;
    times[at] = seconds;
    if (routes.length === blockSize) record();
  }

  function record() {
    for (const [i, route] of routes.entries()) {
      requests.observe({ route, status: statuses[i] as number }, times[i] as number);
    }
    routes.length = 0;
  }

  /** A value read at each scrape. Prometheus accepts a growing gauge as a counter. */
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
  gauge("cache_hits_total", "Reads answered from the cache", () => cache().hits);
  gauge("cache_misses_total", "Reads answered by the database", () => cache().misses);
  gauge("cache_entries", "Persons in the cache", () => cache().entries);
  gauge("cache_bytes", "Memory held by the cache", () => cache().bytes);

  gauge("memory_persons", "Persons whose search text is in memory", () => memory().persons);
  gauge("memory_bytes", "Bytes of these texts", () => memory().bytes);

  if (replica() !== undefined) {
    const read = (name: "asked" | "found" | "up") => () => Number(replica()?.[name]);
    gauge("replica_up", "1 while the replica answers, 0 while it is left out", read("up"));
    gauge("replica_asked_total", "Reads sent to the replica", read("asked"));
    gauge(
      "replica_found_total",
      "Reads that the replica answered; the primary got the others",
      read("found"),
    );
  }

  function batchGauge(name: string, help: string, read: (stats: BatchStats) => number) {
    new Gauge({
      name: `pessoas_batch_${name}`,
      help,
      labelNames: ["kind"],
      registers,
      collect() {
        for (const [kind, stats] of Object.entries(batches())) this.set({ kind }, read(stats));
      },
    });
  }
  batchGauge("statements_total", "Statements sent, each for one or more requests", (s) => s.statements);
  batchGauge("items_total", "Requests served by these statements", (s) => s.items);
  batchGauge("waiting", "Requests in the queue", (s) => s.waiting);
  batchGauge("in_flight", "Requests whose statement is in flight", (s) => s.inFlight);
  batchGauge("oldest_seconds", "Age of the oldest request, queued or in flight", (s) => s.oldestMs / 1000);

  batchGauge("connections", "Connections to the database at most", (s) => s.connections);
  batchGauge("connections_busy", "Connections with a statement in flight", (s) => s.busy);

  return {
    contentType: registry.contentType,
    /** Prometheus' text format. */
    render: () => registry.metrics(),
    observe,
  };
}
