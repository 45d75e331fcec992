import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { type ConnectionOptions, checkServerIdentity, type PeerCertificate } from "node:tls";
import { nameOf } from "./run-as.ts";

// libpq's keywords with their environment variables (fe-connect.c), and search_path.
const used: Record<string, string> = {
  host: "PGHOST",
  hostaddr: "PGHOSTADDR",
  port: "PGPORT",
  dbname: "PGDATABASE",
  user: "PGUSER",
  password: "PGPASSWORD",
  passfile: "PGPASSFILE",
  options: "PGOPTIONS",
  application_name: "PGAPPNAME",
  fallback_application_name: "",
  connect_timeout: "PGCONNECT_TIMEOUT",
  target_session_attrs: "PGTARGETSESSIONATTRS",
  keepalives: "",
  keepalives_idle: "",
  sslmode: "PGSSLMODE",
  sslrootcert: "PGSSLROOTCERT",
  sslcert: "PGSSLCERT",
  sslkey: "PGSSLKEY",
  sslnegotiation: "PGSSLNEGOTIATION",
  ssl_min_protocol_version: "PGSSLMINPROTOCOLVERSION",
  ssl_max_protocol_version: "PGSSLMAXPROTOCOLVERSION",
  search_path: "",
};
const ignored: Record<string, string> = {
  channel_binding: "PGCHANNELBINDING",
  client_encoding: "", // always UTF8, whatever PGCLIENTENCODING says
  gssdelegation: "PGGSSDELEGATION",
  gssencmode: "PGGSSENCMODE",
  gsslib: "PGGSSLIB",
  keepalives_count: "",
  keepalives_interval: "",
  krbsrvname: "PGKRBSRVNAME",
  load_balance_hosts: "PGLOADBALANCEHOSTS",
  sslcertmode: "PGSSLCERTMODE",
  sslcompression: "PGSSLCOMPRESSION",
  sslsni: "PGSSLSNI",
  tcp_user_timeout: "",
};
// Dangerous to ignore silently.
const unsupported: Record<string, string> = {
  replication: "",
  require_auth: "PGREQUIREAUTH",
  requirepeer: "PGREQUIREPEER",
  service: "PGSERVICE",
  sslcrl: "PGSSLCRL",
  sslcrldir: "PGSSLCRLDIR",
  sslpassword: "",
};
const variables = { ...used, ...ignored, ...unsupported };
const otherNames: Record<string, string> = { schema: "search_path", currentSchema: "search_path" };

const defaultPort = 5432;
const connectTimeoutS = 2;
const keepAliveS = 60;
const expected =
  "expected a URL such as postgres://user:password@host:5432/database, in which special characters of a part are percent-encoded";

/** Reads a URL or a keyword string like libpq, without the environment. RangeError, in one line, quotes no value. */
export function addressOf(text: string) {
  const given = parametersOf(text);
  for (const [keyword, value] of given) if (value === "") given.delete(keyword);
  const hosts = hostsOf(given);
  const user = given.get("user") ?? systemUser();
  const database = given.get("dbname") ?? user;
  const [{ socketDir, port } = { socketDir: undefined, port: 0 }] = hosts;
  const options = given.get("options");
  const seconds = (keyword: string) => Math.max(integer(given.get(keyword), keyword) ?? 0, 0);
  const idleS = seconds("keepalives_idle") || keepAliveS;
  const attributes = oneOf(given, "target_session_attrs", Object.keys(sessionAttributes));
  return {
    options: {
      host: hosts.map(({ address }) => address),
      port: hosts.map((each) => each.port),
      /** Of the Unix socket. Replaces host and port. */
      ...(socketDir === undefined ? {} : { path: join(socketDir, `.s.PGSQL.${port}`) }),
      user,
      /** A function, because postgres.js replaces an empty password by PGPASSWORD. */
      pass: passwordOf(given, hosts, database, user),
      database,
      ssl: socketDir === undefined ? sslOf(given, hosts) : false,
      sslnegotiation: oneOf(given, "sslnegotiation", ["postgres", "direct"]) === "direct" ? "direct" : null,
      connect_timeout: seconds("connect_timeout") || connectTimeoutS,
      keep_alive: given.get("keepalives") === "0" ? 0 : idleS,
      target_session_attrs: sessionAttributes[attributes ?? "any"],
      /** Parameters of the startup packet. */
      connection: {
        application_name:
          given.get("application_name") ?? given.get("fallback_application_name") ?? "pessoas",
        ...(options === undefined ? {} : { options }),
      },
    },
    searchPath: given.get("search_path"),
    /** No meaning here. */
    ignored: [...given].filter(([keyword, value]) => isIgnored(keyword, value)).map(([keyword]) => keyword),
  };
}

// read-write needs no check: each session is made writable. A replica may be a primary.
const sessionAttributes: Record<string, "primary" | "standby" | undefined> = {
  any: undefined,
  "read-write": "primary",
  primary: "primary",
  "read-only": "standby",
  standby: "standby",
  "prefer-standby": "standby",
};

function isIgnored(keyword: string, value: string): boolean {
  if (keyword === "client_encoding") return !/^(utf-?8|auto)$/i.test(value);
  return keyword in ignored || (keyword === "passfile" && existsSync(value) && isReadableByOthers(value));
}

/** Adds PG* variables, ~/.postgresql and ~/.pgpass, like psql. A text that addressOf rejects stays as it is. */
export function withEnvironment(text: string, env: Record<string, string | undefined>): string {
  let given: Map<string, string>;
  try {
    given = parametersOf(text);
  } catch {
    return text;
  }
  const added: [string, string][] = [];
  for (const [keyword, variable] of Object.entries(variables)) {
    const value = env[variable];
    if (value && !given.get(keyword)) added.push([keyword, value]);
  }
  const has = (keyword: string) => given.has(keyword) || added.some(([name]) => name === keyword);
  const inHome = (keywords: string[], names: string[]) => {
    const paths = names.map((name) => join(env.HOME ?? "", name));
    if (!env.HOME || keywords.some(has) || !paths.every(existsSync)) return;
    for (const [i, keyword] of keywords.entries()) added.push([keyword, paths[i] as string]);
  };
  inHome(["passfile"], [".pgpass"]);
  inHome(["sslrootcert"], [".postgresql/root.crt"]);
  inHome(["sslcert", "sslkey"], [".postgresql/postgresql.crt", ".postgresql/postgresql.key"]);
  if (added.length === 0) return text;
  if (!isUrl(text)) {
    const quoted = (value: string) => `'${value.replaceAll(/['\\]/g, "\\$&")}'`;
    return [text, ...added.map(([keyword, value]) => `${keyword}=${quoted(value)}`)].join(" ");
  }
  const pairs = added.map(([keyword, value]) => `${keyword}=${encodeURIComponent(value)}`).join("&");
  return `${text}${/[?&]$/.test(text) ? "" : text.includes("?") ? "&" : "?"}${pairs}`;
}

/** For PostgreSQL's own programs. Not as arguments, which other users can read. */
export function libpqEnvironment(text: string): Record<string, string> {
  const given = parametersOf(text);
  const searchPath = given.get("search_path");
  if (searchPath) {
    const option = `-c search_path=${searchPath.replaceAll(/[\\\s]/g, "\\$&")}`;
    given.set("options", [given.get("options"), option].filter(Boolean).join(" "));
  }
  const pairs = [...given].map(([keyword, value]) => [variables[keyword] ?? "", value]);
  return Object.fromEntries(pairs.filter(([variable, value]) => variable !== "" && value !== ""));
}

const isUrl = (text: string) => /^postgres(ql)?:\/\//.test(text);

function parametersOf(text: string): Map<string, string> {
  const given = isUrl(text) ? urlParameters(text) : keywordParameters(text);
  const unknown = [...given.keys()].filter((keyword) => !(keyword in variables));
  if (unknown.length > 0) {
    const instead = unknown
      .filter((keyword) => keyword in otherNames)
      .map((keyword) => `; ${otherNames[keyword]} does what ${keyword} does elsewhere`);
    throw new RangeError(
      `PostgreSQL knows no parameter ${unknown.map(shown).join(", ")}: leave it out${instead.join("")}`,
    );
  }
  for (const [keyword, variable] of Object.entries(unsupported)) {
    if (!given.has(keyword)) continue;
    throw new RangeError(`${keyword}${variable && ` (${variable})`} is not supported: leave it out`);
  }
  for (const [keyword, value] of given) {
    if (value.includes("\0")) throw new RangeError(`${keyword}: expected no %00`);
  }
  return given;
}

/** Not a name that may be part of a password. */
const shown = (keyword: string) => (/^[A-Za-z_]{1,40}$/.test(keyword) ? keyword : "(not a name)");

function urlParameters(text: string): Map<string, string> {
  const given = new Map<string, string>();
  const [, user, password, netloc = "", dbname, query] =
    /^\w+:\/\/(?:([^@/:]*)(?::([^@/]*))?@)?([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/s.exec(text) ?? [];
  const parts = netloc
    .split(",")
    .map((part) => /^(?:\[([^\]]+)\]|([^:[\]@]*))(?::([^:]*))?$/.exec(part) ?? refuse());
  const values = {
    user,
    password,
    host: parts.map(([, ipv6, name]) => ipv6 ?? name).join(","),
    port: parts.map(([, , , port]) => port ?? "").join(","),
    dbname,
  };
  for (const [keyword, value] of Object.entries(values)) {
    if (value && !/^,*$/.test(value)) given.set(keyword, decoded(value));
  }
  for (const pair of query ? query.replace(/&$/, "").split("&") : []) {
    const [, keyword = "", value] = /^([^=]+)=(.*)$/s.exec(pair) ?? refuse();
    const isSsl = keyword === "ssl" && value === "true"; // JDBC's
    given.set(isSsl ? "sslmode" : decoded(keyword), isSsl ? "require" : decoded(value ?? ""));
  }
  return given;
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw new RangeError("expected two hexadecimal digits after each %: a % itself is written %25");
  }
}

/** `host=localhost dbname='my db'`. */
function keywordParameters(text: string): Map<string, string> {
  const pair = /\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))(?=\s|$)/gsy;
  const pairs = [...text.matchAll(pair)];
  const length = pairs.reduce((sum, [whole]) => sum + whole.length, 0);
  if (pairs.length === 0 || text.slice(length).trim() !== "") refuse();
  return new Map(
    pairs.map(([, keyword = "", quoted, bare = ""]) => [
      keyword,
      (quoted ?? bare).replaceAll(/\\(.)/gs, "$1"),
    ]),
  );
}

function refuse(): never {
  throw new RangeError(expected);
}

type Host = { name: string; address: string; port: number; socketDir: string | undefined };

function hostsOf(given: Map<string, string>): Host[] {
  const list = (keyword: string) => (given.get(keyword) ?? "").split(",");
  const names = list("host");
  const addresses = given.get("hostaddr") ? list("hostaddr") : [];
  const ports = list("port");
  const count = Math.max(names.length, addresses.length);
  if (addresses.length > 0 && addresses.length !== names.length && names.join() !== "") {
    throw new RangeError(`hostaddr: expected as many as hosts: ${names.length}`);
  }
  if (ports.length !== 1 && ports.length !== count) {
    throw new RangeError(`port: expected one, or as many as hosts: ${count}`);
  }
  const hosts = Array.from({ length: count }, (_, i) => {
    const port = integer(ports[ports.length === 1 ? 0 : i], "port") ?? defaultPort;
    if (port < 1 || port > 65_535) throw new RangeError(`port: expected 1 to 65535; ${expected}`);
    const name = names[i] ?? "";
    const address = addresses[i] || name || defaultSocketDir();
    return { name, address, port, socketDir: address.startsWith("/") ? address : undefined };
  });
  if (count > 1 && hosts.some(({ socketDir }) => socketDir !== undefined)) {
    throw new RangeError("host: expected one folder of a Unix socket, or one or more names of hosts");
  }
  return hosts;
}

/** Debian's libpq uses the first, PostgreSQL's own the second. */
function defaultSocketDir(): string {
  return existsSync("/var/run/postgresql") ? "/var/run/postgresql" : "/tmp";
}

const systemUser = () => nameOf(process.getuid?.() ?? -1) || process.env.USER || refuse();

function integer(value: string | undefined, keyword: string): number | undefined {
  if (!value) return undefined;
  if (!/^\s*-?\d{1,9}\s*$/.test(value)) {
    throw new RangeError(`${keyword}: expected a whole number${keyword === "port" ? `; ${expected}` : ""}`);
  }
  return Number(value);
}

function oneOf(given: Map<string, string>, keyword: string, values: string[]): string | undefined {
  const value = given.get(keyword);
  if (value === undefined || values.includes(value)) return value;
  throw new RangeError(`${keyword}: expected one of ${values.join(", ")}`);
}

const modes = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
const tlsVersions = ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];

/** https://www.postgresql.org/docs/current/libpq-ssl.html */
function sslOf(given: Map<string, string>, hosts: Host[]): false | "prefer" | ConnectionOptions {
  const root = given.get("sslrootcert");
  const system = root === "system";
  const mode = oneOf(given, "sslmode", modes) ?? (system ? "verify-full" : "prefer");
  if (system && mode !== "verify-full") throw new RangeError("sslmode: sslrootcert=system needs verify-full");
  if (mode === "verify-ca" && root === undefined) {
    throw new RangeError("sslmode: verify-ca needs sslrootcert, the file of the authority; or verify-full");
  }
  if (given.get("sslnegotiation") === "direct" && modes.indexOf(mode) < modes.indexOf("require")) {
    throw new RangeError("sslnegotiation: direct needs sslmode=require, verify-ca or verify-full");
  }
  if (mode === "disable") return false;
  const [cert, key] = [fileOf(given, "sslcert"), fileOf(given, "sslkey")];
  if ((cert === undefined) !== (key === undefined)) {
    throw new RangeError("sslcert, sslkey: expected both or none");
  }
  const version = (keyword: string) =>
    oneOf(given, keyword, tlsVersions) as NonNullable<ConnectionOptions["minVersion"]> | undefined;
  const minVersion = version("ssl_min_protocol_version");
  const maxVersion = version("ssl_max_protocol_version");
  const more: ConnectionOptions = {
    ...(cert === undefined || key === undefined ? {} : { cert, key }),
    ...(minVersion && { minVersion }),
    ...(maxVersion && { maxVersion }),
  };
  const isOpportunistic = mode === "allow" || mode === "prefer";
  if (isOpportunistic && cert === undefined) return "prefer";
  if (isOpportunistic || (mode === "require" && root === undefined))
    return { ...more, rejectUnauthorized: false };
  const ca = system ? undefined : fileOf(given, "sslrootcert");
  return {
    ...more,
    rejectUnauthorized: true,
    ...(ca === undefined ? {} : { ca }),
    checkServerIdentity: (_: string, certificate: PeerCertificate) =>
      mode === "verify-full" ? checkName(hosts, certificate) : undefined,
  };
}

/** Accepts the certificate of any host, because TLS does not know the name behind an IP address. */
function checkName(hosts: Host[], certificate: PeerCertificate): Error | undefined {
  const wrong = hosts.map(({ name, address }) => checkServerIdentity(name || address, certificate));
  return wrong.includes(undefined) ? undefined : wrong[0];
}

function fileOf(given: Map<string, string>, keyword: string): string | undefined {
  const path = given.get(keyword);
  if (!path) return undefined;
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new RangeError(`${keyword}: ${(error as Error).message}`);
  }
}

/** Like libpq, a password file that others can read is not used. */
const isReadableByOthers = (path: string) => (statSync(path).mode & 0o077) !== 0;

/** The given password, or that of the first matching line in the file. */
function passwordOf(given: Map<string, string>, hosts: Host[], database: string, user: string): () => string {
  const password = given.get("password");
  if (password) return () => password;
  const path = given.get("passfile");
  if (!path || !existsSync(path) || isReadableByOthers(path)) return () => "";
  const lines = (fileOf(given, "passfile") ?? "").split("\n").filter((line) => !line.startsWith("#"));
  const entries = lines.map((line) =>
    [...line.trimEnd().matchAll(/((?:[^:\\]|\\.)*)(?::|$)/g)].map(([, field = ""]) => field),
  );
  const plain = (field: string) => field.replaceAll(/\\(.)/g, "$1");
  for (const { name, address, port, socketDir } of hosts) {
    const host = socketDir !== undefined && socketDir === defaultSocketDir() ? "localhost" : name || address;
    const wanted = [host, String(port), database, user];
    const entry = entries.find((fields) =>
      wanted.every((value, i) => fields[i] === "*" || plain(fields[i] ?? "") === value),
    );
    if (entry?.[4] !== undefined) return () => plain(entry[4] as string);
  }
  return () => "";
}
