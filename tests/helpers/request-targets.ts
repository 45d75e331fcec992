// Raw request targets as latin1, and the allowed answers to them.
import fc from "fast-check";

const folders = ["/", "/contagem-pessoas", "/healthz", "/readyz", "/docs", "/openapi.json"];
const assets = ["/docs/start.js", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js"];
const small = [...folders, "/docs/start.js", "/pessoas"];
const nobody = "/pessoas/5ce4668c-4710-4cfb-ae5f-38988d6d49cb";
const others = ["/metrics", "/api1/metrics", "/problem", "/bad", "/refused", "/nothing", "/pessoas/a"];
const queries = ["", "", ..."? ?t=a ?t= ?t ?x=%zz&t=a ?t=%FF ?t=%EF%BF%BD ?T=a&%74=%C3%A9 ?x=1".split(" ")];
const pieces = [
  ...String.raw`/ // /. /.. /../ . .. \ \..\ %5c %2e %2E%2e/ %2f %41 %00 %zz % # ? & &t=b t= = + ; : @ | " * x`.split(
    " ",
  ),
  ..."\t \x01 \x7f \xff \xc3\xa9 \xc3 \xed\xa0\x80 \xf0\x9f\xa6\x9c \xef\xbf\xbd \xc0\xaf".split(" "),
];

const change = fc.record({ at: fc.nat(), kind: fc.nat({ max: 5 }), piece: fc.constantFrom(...pieces) });

function changed(target: string, { at, kind, piece }: { at: number; kind: number; piece: string }): string {
  const i = at % (target.length + 1);
  const [before, character, after] = [target.slice(0, i), target.charAt(i), target.slice(i + 1)];
  if (kind === 0 || character === "") return before + (kind > 2 ? piece : "") + after;
  if (kind === 1) return `${before}%${character.charCodeAt(0).toString(16).padStart(2, "0")}${after}`;
  if (kind === 2) return before + character.toUpperCase() + after;
  return before + piece + character + after;
}

/** An existing path or one close to it, with a query, in origin-form or absolute-form, without CR, LF, NUL and space. */
export const targets = fc
  .record({
    path: fc.constantFrom(...small, nobody, ...others),
    query: fc.constantFrom(...queries),
    changes: fc.array(change, { maxLength: 3 }),
    origin: fc.constantFrom("", "", "", "http://x", "HTTPS://x.y:80"),
  })
  .map(({ path, query, changes, origin }) => {
    const target = changes.reduce(changed, path + query);
    return target.startsWith("/") ? origin + target : target;
  });

/** The allowed statuses for `method` and this target through nginx, without a body, when no person has the id. */
export function statusesOf(method: string, target: string): number[] {
  const origin = /^[a-z]+:\/\/[^/]+/i.exec(target)?.[0] ?? "";
  const [raw, query] = cut(target.slice(origin.length), "?");
  const isPath = raw.startsWith("/");
  if (!isPath) return [400];
  const path = raw.length > 2 && raw.endsWith("/") ? raw.slice(0, -1) : raw;
  const isPerson = /^\/pessoas\/[A-Za-z0-9._~!$&'()*+,;=:@-]+$/.test(path) && !/\/\.\.?$/.test(path);
  if (path !== "/pessoas" && !isPerson && ![...folders, ...assets].includes(path)) {
    return isControl(query) ? [400, 404] : [404];
  }
  if (isControl(query)) return [400];
  if (method === "POST" && path === "/pessoas") return [400];
  if (method !== "GET" && method !== "HEAD") return [405];
  if (path === "/") return [307];
  if (isPerson) return [404];
  return path === "/pessoas" && !hasTerm(query) ? [400] : [200];
}

function hasTerm(query: string): boolean {
  const values = query
    .split("&")
    .map((pair) => cut(pair, "="))
    .filter(([name]) => name === "t" || name === "%74")
    .map(([, value]) => value);
  const [value = ""] = values;
  if (values.length !== 1 || value === "" || /%(?![0-9a-f]{2})/i.test(value)) return false;
  const bytes = value.replace(/%(..)/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  return Buffer.from(bytes, "latin1").equals(
    Buffer.from(Buffer.from(bytes, "latin1").toString("utf8"), "utf8"),
  );
}

function cut(text: string, mark: string): [before: string, after: string] {
  const at = text.indexOf(mark);
  return at === -1 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}

/** Whether the text contains a control character, which a request line must not. */
export const isControl = (text: string) => [...text].some((each) => each < " " || each === "\x7f");
