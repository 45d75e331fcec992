import { join } from "node:path";
import axe from "axe-core";

/** A headless Chromium, or the program that CHROMIUM names, with a new profile. Rejects if it does not start. */
export async function launch(profile: string) {
  const command = process.env.CHROMIUM ?? "chromium";
  // Without the sandbox, which does not work for root. The pages are trusted.
  const flags = `--headless --no-sandbox --disable-gpu --disable-quic --disable-background-networking
    --disable-component-update --disable-sync --no-first-run --hide-scrollbars --remote-debugging-port=0`;
  const child = Bun.spawn([command, ...flags.split(/\s+/), `--user-data-dir=${profile}`, "about:blank"], {
    stdout: "ignore",
    stderr: "ignore",
  });
  const told = async () => {
    const file = Bun.file(join(profile, "DevToolsActivePort"));
    return (await file.text().catch(() => "")).split("\n");
  };
  let [port, path] = await told();
  for (let tries = 0; !path; tries++) {
    if (child.exitCode !== null || tries > 1100) throw new Error(`${command} does not start`);
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
    /** Resolves when the page is loaded. `events`: requests, messages on the console, errors. */
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
      /** The settled value of a script that runs in the page. */
      const run = async <T>(expression: string): Promise<T> => {
        const { result, exceptionDetails } = await tell<{
          result: { value: T };
          exceptionDetails?: unknown;
        }>("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true });
        if (exceptionDetails) throw new Error(JSON.stringify(exceptionDetails));
        return result.value;
      };
      return {
        events,
        run,
        /** Accessibility violations that axe finds, as `rule: element`. */
        async barriers(): Promise<string[]> {
          await run(`${axe.source}; true`);
          return await run(`axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) =>
            violations.flatMap(({ id, nodes }) => nodes.map(({ target }) => id + ": " + target.join(" "))))`);
        },
        /** A PNG of the page, or of a part of it in CSS pixels. */
        async screenshot(clip?: { x: number; y: number; width: number; height: number }) {
          const part = clip ? { clip: { ...clip, scale: 1 } } : {};
          const options = { captureBeyondViewport: true, format: "png", ...part };
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

type Browser = Awaited<ReturnType<typeof launch>>;
export type Tab = Awaited<ReturnType<Browser["open"]>>;

/** A script for a page: shown(selector, text) resolves with the first matching element that shows the text. */
export const shown = `
  const shown = async (selector, text = "") => {
    for (let tries = 0; tries < 1100; tries++) {
      const found = [...document.querySelectorAll(selector)].find((each) => each.textContent.includes(text));
      if (found) return found;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error(selector + ": nothing shows " + text);
  };
`;

/** Creates a person at /docs by "Try it out"; resolves with the body that the page shows. */
export async function tryItOut({ run }: Tab, body: string): Promise<string> {
  // Like typing: React listens for the event and reads the value from the prototype's property.
  const answer = await run<string>(`(async () => {
    ${shown}
    (await shown(".opblock-post .opblock-summary-control")).click();
    const box = await shown(".opblock-post textarea.body-param__text");
    Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(box, ${JSON.stringify(body)});
    box.dispatchEvent(new Event("input", { bubbles: true }));
    (await shown(".opblock-post button.execute")).click();
    await shown(".live-responses-table .response-col_status", "201");
    return (await shown(".live-responses-table .response .highlight-code")).textContent;
  })()`);
  return answer.slice(answer.indexOf("{"), answer.lastIndexOf("}") + 1);
}
