// The pages as people see them, in a real Chromium: bun run test:browser. Not part of "bun test", because few have
// one; here its absence fails. CHROMIUM names it where it is not "chromium".
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { contestPage } from "./report.fixture.ts";
import { type Page, writeReport } from "./report.ts";

// Where to leave what it saw, for people to look at.
const screenshots = process.env.SCREENSHOTS;

let folder: string;
let browser: Awaited<ReturnType<typeof launch>>;
const pages: Record<string, Page> = {};

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pessoas-browser-"));
  browser = await launch(process.env.CHROMIUM ?? "chromium", join(folder, "profile"));
  if (screenshots) await mkdir(screenshots, { recursive: true });
  const contest = contestPage();
  const [run] = contest.runs as [Page["runs"][number]];
  const few = run.requests.filter((_, index) => index % 97 === 0).slice(0, 40);
  pages.contest = contest;
  pages.bench = {
    ...contest,
    title: "Benchmark",
    runs: [
      { ...run, title: "mixed", samples: [], requests: few },
      {
        ...run,
        title: "create",
        passed: false,
        problems: ["lost: <script>alert(1)</script>"],
        samples: [],
        requests: [],
      },
    ],
  };
});
afterAll(async () => {
  await browser?.close();
  await rm(folder, { recursive: true, force: true });
});

/** What report.look.js finds in a page. */
type Seen = {
  charts: {
    title: string;
    svgs: number;
    drawn: number;
    smallest: number;
    overlaps: string[];
    outside: string[];
  }[];
  scrollsSideways: boolean;
  background: string;
  text: string;
};

describe.each([
  ["contest", "light", 1200],
  ["contest", "dark", 1200],
  ["contest", "light", 390],
  ["contest", "dark", 768],
  ["bench", "light", 1200],
  ["bench", "light", 390],
] as const)("%s, %s, %d pixels wide", (name, scheme, width) => {
  let seen: Seen;
  let events: string[];

  beforeAll(async () => {
    const report = await writeReport(join(folder, name), pages[name] as Page);
    const tab = await browser.open(pathToFileURL(report).href, { scheme, width });
    seen = await tab.run<Seen>(await Bun.file(join(import.meta.dir, "report.look.js")).text());
    events = tab.events;
    if (screenshots)
      await Bun.write(join(screenshots, `${name}-${scheme}-${width}.png`), await tab.screenshot());
    await tab.close();
  });

  test("all charts are drawn", () => {
    const expected =
      name === "contest"
        ? [
            "Latency over time",
            "Throughput",
            "Latency histogram",
            "CPU",
            "Memory",
            "Reads answered",
            "Requests per database",
          ]
        : ["Latency over time", "Throughput", "Latency histogram"];
    expect(seen.charts.map(({ title }) => expected.find((start) => title.startsWith(start)))).toEqual(
      expected,
    );
    for (const { svgs, drawn, title } of seen.charts)
      expect([title, svgs, drawn > 2]).toEqual([title, 1, true]);
  });

  test("it can be read: no text over another, none cut off, none tiny, nothing wider than the screen", () => {
    for (const { title, overlaps, outside, smallest } of seen.charts) {
      expect({ title, overlaps, outside, large: smallest > 9 }).toEqual({
        title,
        overlaps: [],
        outside: [],
        large: true,
      });
    }
    expect(seen.scrollsSideways).toBe(false);
  });

  test("it follows the reader's colour scheme", () => {
    expect(seen.background).toBe(scheme === "dark" ? "rgb(14, 17, 22)" : "rgb(245, 246, 248)");
  });

  test("nothing is said on the console and nothing is fetched but the page", () => {
    expect(events).toEqual([expect.stringMatching(/^request file:.*report\.html$/)]);
  });

  test("what could not be measured is told, and a text is never taken for HTML", () => {
    if (name === "contest") return expect(seen.text).not.toContain("not measured");
    expect(seen.text).toContain("CPU and memory: not measured");
    expect(seen.text).toContain("no request was answered");
    expect(seen.text).toContain("lost: <script>alert(1)</script>");
  });
});

test("a picture of its own is shown by the browser", async () => {
  await writeReport(join(folder, "pictures"), pages.contest as Page);
  for (const id of ["latency", "throughput", "histogram", "cpu", "memory", "cache", "batches"]) {
    const tab = await browser.open(pathToFileURL(join(folder, "pictures", `${id}.svg`)).href, {
      scheme: "light",
      width: 1040,
    });
    // In a broken one the browser shows its parser's error, which is HTML.
    const found = await tab.run<unknown[]>(
      '[document.documentElement.tagName, document.querySelectorAll("text").length > 5]',
    );
    expect([id, ...found]).toEqual([id, "svg", true]);
    if (screenshots) await Bun.write(join(screenshots, `${id}.png`), await tab.screenshot());
    await tab.close();
  }
});

/** A headless Chromium with a profile of its own. Rejects when there is none. */
async function launch(command: string, profile: string) {
  const child = Bun.spawn(
    [
      command,
      "--headless",
      "--no-sandbox", // does not work for root; the pages are our own
      "--disable-gpu",
      "--disable-quic",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--no-first-run",
      "--hide-scrollbars",
      "--remote-debugging-port=0",
      `--user-data-dir=${profile}`,
      "about:blank",
    ],
    { stdout: "ignore", stderr: "ignore" },
  );
  const told = async () =>
    (
      await Bun.file(join(profile, "DevToolsActivePort"))
        .text()
        .catch(() => "")
    ).split("\n");
  let [port, path] = await told();
  for (let tries = 0; !path; tries++) {
    if (child.exitCode !== null || tries > 600) throw new Error(`${command} does not start`);
    await Bun.sleep(50);
    [port, path] = await told();
  }
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`);
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = reject;
  });

  type Reply = {
    id?: number;
    sessionId?: string;
    method?: string;
    params?: unknown;
    result?: unknown;
    error?: unknown;
  };
  const replies = new Map<number, (reply: Reply) => void>();
  const listeners = new Map<string, (method: string, params: unknown) => void>();
  let lastId = 0;
  socket.onmessage = ({ data }) => {
    const reply = JSON.parse(String(data)) as Reply;
    if (reply.id !== undefined) replies.get(reply.id)?.(reply);
    else if (reply.method && reply.sessionId) listeners.get(reply.sessionId)?.(reply.method, reply.params);
  };
  async function call<T>(method: string, params: object, sessionId?: string): Promise<T> {
    const id = ++lastId;
    const reply = await new Promise<Reply>((resolve) => {
      replies.set(id, resolve);
      socket.send(JSON.stringify({ id, method, params, ...(sessionId ? { sessionId } : {}) }));
    });
    if (reply.error) throw new Error(`${method}: ${JSON.stringify(reply.error)}`);
    return reply.result as T;
  }

  return {
    /** Resolves when the page is loaded. `events`: what it fetched, said on the console, or threw. */
    async open(url: string, { scheme, width }: { scheme: "light" | "dark"; width: number }) {
      const { targetId } = await call<{ targetId: string }>("Target.createTarget", { url: "about:blank" });
      const attached = { targetId, flatten: true };
      const { sessionId } = await call<{ sessionId: string }>("Target.attachToTarget", attached);
      const tell = <T>(method: string, params: object = {}) => call<T>(method, params, sessionId);
      const events: string[] = [];
      const loaded = Promise.withResolvers<void>();
      listeners.set(sessionId, (method, params) => {
        const { request } = params as { request?: { url: string } };
        if (method === "Network.requestWillBeSent") events.push(`request ${request?.url}`);
        else if (method === "Page.loadEventFired") loaded.resolve();
        else if (["Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"].includes(method)) {
          events.push(`${method} ${JSON.stringify(params)}`);
        }
      });
      for (const domain of ["Page", "Network", "Runtime", "Log"]) await tell(`${domain}.enable`);
      await tell("Emulation.setDeviceMetricsOverride", {
        width,
        height: 900,
        deviceScaleFactor: 1,
        mobile: width < 600,
      });
      await tell("Emulation.setEmulatedMedia", {
        features: [{ name: "prefers-color-scheme", value: scheme }],
      });
      await tell("Page.navigate", { url });
      await loaded.promise;
      return {
        events,
        /** The value of a script that runs in the page. */
        async run<T>(expression: string): Promise<T> {
          const { result, exceptionDetails } = await tell<{
            result: { value: T };
            exceptionDetails?: unknown;
          }>("Runtime.evaluate", { expression, returnByValue: true });
          if (exceptionDetails) throw new Error(JSON.stringify(exceptionDetails));
          return result.value;
        },
        async screenshot() {
          const options = { captureBeyondViewport: true, format: "png" };
          const { data } = await tell<{ data: string }>("Page.captureScreenshot", options);
          return Buffer.from(data, "base64");
        },
        close: () => call("Target.closeTarget", { targetId }),
      };
    },
    async close() {
      await call("Browser.close", {}).catch(() => {});
      await child.exited;
    },
  };
}
