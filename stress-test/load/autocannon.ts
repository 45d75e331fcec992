import autocannon from "autocannon";
import type { Request } from "./http.ts";
import type { Result } from "./results.ts";

type Options = { url: string } & Record<"connections" | "seconds" | "timeoutMs" | "giveUpAfter", number>;

/**
 * A closed loop by autocannon: every connection sends its next request when the one before is answered, for `seconds`.
 * Resolves with the results when all answers are there: a loop that stops listening while requests are in flight would
 * see fewer 201s than there are persons. It stops after `giveUpAfter` requests without an answer.
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
    duration: seconds + timeoutMs / 1000 + 1, // in vain: each connection ends below, when it has its last answer
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
    // What autocannon calls amount, per connection: it has sent that many, so it ends with the next answer. When the
    // duration is over it would hang up with a request in flight.
    for (const client of clients) (client as unknown as { responseMax: number }).responseMax = 1;
  }, seconds * 1000);
  const { timeouts } = await running;
  clearTimeout(timer);
  // Also those whose connection ended or was reset: autocannon sends the next request and forgets this one.
  const reason = timeouts > 0 ? `no answer within ${timeoutMs / 1000} s` : "the connection was closed";
  for (const sent of inFlight) record(sent, 0, reason);
  return results;
}
