import autocannon from "autocannon";
import type { Request } from "./http.ts";
import type { Result } from "./results.ts";

type Options = { url: string } & Record<"connections" | "seconds" | "timeoutMs" | "giveUpAfter", number>;

/**
 * A closed loop of `seconds` by autocannon: every connection sends its next request after the answer to the one before.
 * Resolves when all answers have come, because with requests in flight there would be fewer 201s than stored persons.
 * Stops after `giveUpAfter` requests without an answer.
 */
export async function closedLoop(
  { url, connections, seconds, timeoutMs, giveUpAfter }: Options,
  next: () => Request,
): Promise<Result[]> {
  type Sent = { request: Request; dueMs: number };
  const inFlight = new Set<Sent>();
  const clients: autocannon.Client[] = [];
  const results: Result[] = [];
  const record = ({ request: { kind }, dueMs }: Sent, status: number, fault: string) =>
    results.push({ kind, dueMs, ms: performance.now() - dueMs, status, fault });
  const running = autocannon({
    url,
    connections,
    timeout: timeoutMs / 1000,
    duration: seconds + timeoutMs / 1000 + 1, // never reached: each connection ends below, after its last answer
    bailout: giveUpAfter,
    sampleInt: 100,
    setupClient: (client) => void clients.push(client),
    requests: [
      {
        setupRequest(given, context: { sent?: Sent }) {
          const request = next();
          context.sent = { request, dueMs: performance.now() };
          inFlight.add(context.sent);
          const { method, path, body = "" } = request;
          return {
            ...given,
            method,
            path,
            body,
            headers: body === "" ? {} : { "Content-Type": "application/json" },
          };
        },
        onResponse(status, text, { sent }: { sent?: Sent }, headers = {}) {
          if (!sent || !inFlight.delete(sent)) return;
          const head = Object.entries(headers).map(([name, value]) => `\r\n${name}: ${value}`);
          const body = Buffer.from(text);
          const answer = { status, head: head.join(""), body, bytes: body.length };
          record(sent, status, sent.request.check(answer));
        },
      },
    ],
  });
  const timer = setTimeout(() => {
    // Each connection now ends with its next answer. At the end of its duration autocannon would disconnect with a
    // request in flight. responseMax is autocannon's "amount" for one connection.
    for (const client of clients) (client as unknown as { responseMax: number }).responseMax = 1;
  }, seconds * 1000);
  const { timeouts } = await running;
  clearTimeout(timer);
  // autocannon does not report a request whose connection ended or was reset.
  const reason = timeouts > 0 ? `no answer within ${timeoutMs / 1000} s` : "the connection was closed";
  for (const sent of inFlight) record(sent, 0, reason);
  return results;
}
