import { expect, test } from "bun:test";
import { chmod, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { addressOf, libpqEnvironment, withEnvironment } from "../../database/address.ts";
import { readSettings } from "../../process/settings.ts";
import { temporaryFolder } from "../helpers/support.ts";

/** The parts of an address that these tests compare. */
function seen(text: string) {
  const { options, searchPath } = addressOf(text);
  const { host, port, path, user, pass, database } = options;
  const at = path ?? host.map((name, i) => `${name} ${port[i]}`).join(", ");
  return { at, user, pass: pass(), database, searchPath };
}

test.each([
  ["postgres://u:p@h:5433/d", { at: "h 5433", user: "u", pass: "p", database: "d" }],
  ["postgresql://u@h/d", { at: "h 5432", user: "u", pass: "", database: "d" }],
  ["postgres://u@h", { at: "h 5432", database: "u" }],
  ["postgres://u:p%40%2F%23%25@h/a%2Fb%20c", { user: "u", pass: "p@/#%", database: "a/b c" }],
  ["postgres://u:p#?&=@h/d", { user: "u", pass: "p#?&=", at: "h 5432" }],
  ["postgres://u%40server:p@h/d", { user: "u@server" }],
  ["postgres://u@[::1]:5433/d", { at: "::1 5433" }],
  ["postgres://u@[fe80::1%25eth0]/d", { at: "fe80::1%eth0 5432" }],
  ["postgres://u@h1:1,h2,[::1]:3/d", { at: "h1 1, h2 5432, ::1 3" }],
  ["postgres://u@h1,h2/d?port=7", { at: "h1 7, h2 7" }],
  ["postgres://u@localhost/d?host=/run/pg", { at: "/run/pg/.s.PGSQL.5432" }],
  ["postgres://u@localhost:1/d?host=/run/pg", { at: "/run/pg/.s.PGSQL.1" }],
  ["postgres://u@%2Frun%2Fpg:1/d", { at: "/run/pg/.s.PGSQL.1" }],
  ["postgres://u@/d", { at: expect.stringMatching(/^\/(var\/run\/postgresql|tmp)\/\.s\.PGSQL\.5432$/) }],
  [
    "postgres:///?host=h&port=1&user=u&password=p&dbname=d",
    { at: "h 1", user: "u", pass: "p", database: "d" },
  ],
  ["postgres://?user=u&user=v&host=a&dbname=", { user: "v", at: "a 5432", database: "v" }],
  ["postgres://u@name/d?hostaddr=127.0.0.1", { at: "127.0.0.1 5432" }],
  ["host=h port=1 user=u password='p \\'\\\\' dbname = d", { at: "h 1", pass: "p '\\", database: "d" }],
  ["postgres://u@h/d?search_path=rinha", { searchPath: "rinha" }],
  ["postgres://u@h/d?search_path=%22a%20b%22,c&", { searchPath: '"a b",c' }],
])("%s is read as by libpq", (text, expected) => {
  expect(seen(text)).toMatchObject(expected);
});

const hosts = {
  Neon: "postgresql://u:p@ep-x-1.eu-central-1.aws.neon.tech/neondb?sslmode=require&channel_binding=require",
  "Neon without SNI": "postgres://u:p@h.neon.tech/neondb?sslmode=require&options=endpoint%3Dep-x-1",
  Supabase: "postgresql://postgres.ref:p@aws-0-eu-central-1.pooler.supabase.com:5432/postgres",
  Heroku: "postgres://u:p@ec2-1-2-3-4.compute-1.amazonaws.com:5432/d8r",
  RDS: "postgres://u:p@x.y.eu-west-1.rds.amazonaws.com:5432/d?sslmode=verify-full&sslrootcert=system",
  Render: "postgresql://u:p@dpg-x-a.frankfurt-postgres.render.com/d",
  DigitalOcean: "postgresql://doadmin:p@x.b.db.ondigitalocean.com:25060/defaultdb?sslmode=require",
  JDBC: "postgres://u:p@h/d?ssl=true",
};

test.each(Object.entries(hosts))("the URL of %s is accepted", (_, text) => {
  expect(readSettings({ DATABASE_URL: text })).toMatchObject({ DATABASE_URL: text });
});

test.each([
  ["mydb", "expected a URL such as "],
  ["mysql://u:secret@h/d", "expected a URL such as "],
  ["postgres://u:secret@word@h/d", "expected a URL such as "],
  ["postgres://u:secret/word@h/d", "port: expected a whole number; expected a URL such as "],
  ["postgres://u@[::1/d", "expected a URL such as "],
  ["postgres://u@::1/d", "expected a URL such as "],
  ["postgres://u:secret%@h/d", "expected two hexadecimal digits after each %"],
  ["postgres://u:secret%00@h/d", "password: expected no %00"],
  ["postgres://u@h:0/d", "port: expected 1 to 65535"],
  ["postgres://u@h:65536/d", "port: expected 1 to 65535"],
  ["postgres://u@h1,h2,h3/d?port=1,2", "port: expected one, or as many as hosts: 3"],
  ["postgres://u@h1,h2/d?hostaddr=127.0.0.1", "hostaddr: expected as many as hosts: 2"],
  ["postgres://u@h1,%2Frun/d", "host: expected one folder of a Unix socket"],
  ["postgres://u@h/d?secret", "expected a URL such as "],
  ["postgres://u@h/d?sslmode=no-verify", "sslmode: expected one of disable, allow, prefer, require, "],
  ["postgres://u@h/d?sslmode=verify-ca", "sslmode: verify-ca needs sslrootcert"],
  ["postgres://u@h/d?sslmode=require&sslrootcert=system", "sslmode: sslrootcert=system needs verify-full"],
  ["postgres://u@h/d?sslmode=verify-ca&sslrootcert=/nowhere", "sslrootcert: ENOENT"],
  ["postgres://u@h/d?sslmode=require&sslcert=/dev/null", "sslcert, sslkey: expected both or none"],
  ["postgres://u@h/d?sslnegotiation=direct", "sslnegotiation: direct needs sslmode=require"],
  ["postgres://u@h/d?connect_timeout=soon", "connect_timeout: expected a whole number"],
  ["postgres://u@h/d?target_session_attrs=all", "target_session_attrs: expected one of any, read-write, "],
  [
    "postgres://u@h/d?target_session_attrs=standby",
    "target_session_attrs: expected read-write, primary or any",
  ],
  ["postgres://u@h/d?service=s", "service (PGSERVICE) is not supported: leave it out"],
  ["postgres://u@h/d?require_auth=none", "require_auth (PGREQUIREAUTH) is not supported: leave it out"],
  [
    "postgres://u@h/d?schema=public&connection_limit=5&pgbouncer=true", // Prisma's
    "PostgreSQL knows no parameter schema, connection_limit, pgbouncer: leave it out; search_path does what schema does",
  ],
  ["postgres://u@h/d?se-cret=1", "PostgreSQL knows no parameter (not a name)"],
])("%s is rejected in one line that names DATABASE_URL and shows no password", (text, message) => {
  const refused = () => readSettings({ DATABASE_URL: text });
  expect(refused).toThrow(RangeError);
  expect(refused).toThrow(`DATABASE_URL: ${message}`);
  expect(refused).not.toThrow(/\n|secret/);
});

test("DATABASE_URL_READ may name a standby, and an error names DATABASE_URL_READ", () => {
  const DATABASE_URL = "postgres://u@h/d";
  const standby = "postgres://u@h1,h2/d?target_session_attrs=prefer-standby";
  expect(readSettings({ DATABASE_URL, DATABASE_URL_READ: standby })).toMatchObject({
    DATABASE_URL_READ: standby,
  });
  expect(() => readSettings({ DATABASE_URL, DATABASE_URL_READ: "mysql://u:secret@h/d" })).toThrow(
    /^DATABASE_URL_READ: expected a URL such as (?!.*secret)/,
  );
});

test("libpq's parameters without a meaning here are ignored, and listed", () => {
  const { ignored } = addressOf(
    "postgres://u@h/d?channel_binding=require&gssencmode=prefer&sslcompression=0&tcp_user_timeout=1",
  );
  expect(ignored).toEqual(["channel_binding", "gssencmode", "sslcompression", "tcp_user_timeout"]);
  expect(addressOf("postgres://u@h/d?client_encoding=LATIN1").ignored).toEqual(["client_encoding"]);
  expect(addressOf("postgres://u@h/d?client_encoding=utf8&sslmode=require").ignored).toEqual([]);
});

test.each([
  ["", "prefer"],
  ["?sslmode=allow", "prefer"],
  ["?sslmode=disable", false],
  ["?sslmode=require", { rejectUnauthorized: false }],
  ["?sslmode=verify-full", { rejectUnauthorized: true }],
  ["?sslrootcert=system", { rejectUnauthorized: true }],
  ["?sslmode=require&sslrootcert=/dev/null", { rejectUnauthorized: true, ca: "" }],
  ["?sslmode=require&ssl_min_protocol_version=TLSv1.3", { rejectUnauthorized: false, minVersion: "TLSv1.3" }],
  ["?sslcert=/dev/null&sslkey=/dev/null", { rejectUnauthorized: false, cert: "", key: "" }],
  ["?host=/run&sslmode=require", false], // a socket has no SSL, as in libpq
])("%s requests SSL as libpq does", (query, ssl) => {
  const { options } = addressOf(`postgres://u@h/d${query}`);
  if (typeof ssl === "object") expect(options.ssl).toMatchObject(ssl);
  else expect(options.ssl).toBe(ssl as "prefer" | false);
});

test("other parameters go to the driver, with defaults for missing ones", () => {
  const { options } = addressOf(
    "postgres://u@h/d?application_name=a&connect_timeout=9&keepalives_idle=8&target_session_attrs=read-write&options=-c%20a%3Db",
  );
  expect(options).toMatchObject({
    connect_timeout: 9,
    keep_alive: 8,
    target_session_attrs: "primary",
    connection: { application_name: "a", options: "-c a=b" },
  });
  expect(
    addressOf("postgres://u@h/d?connect_timeout=0&keepalives=0&target_session_attrs=any").options,
  ).toMatchObject({
    connect_timeout: 2,
    keep_alive: 0,
    target_session_attrs: undefined,
    connection: { application_name: "pessoas" },
  });
});

test("a variable of the environment counts only where the URL has no such part", () => {
  const env = {
    PGHOST: "e",
    PGPORT: "1",
    PGUSER: "eu",
    PGPASSWORD: "e p",
    PGDATABASE: "ed",
    PGSSLMODE: "disable",
  };
  for (const [text, expected] of [
    ["postgres://", { at: "e 1", user: "eu", pass: "e p", database: "ed" }],
    ["postgres:///?", { at: "e 1", user: "eu", pass: "e p", database: "ed" }],
    ["postgres://u:p@h:2/d?sslmode=require", { at: "h 2", user: "u", pass: "p", database: "d" }],
    ["dbname=d", { at: "e 1", user: "eu", pass: "e p", database: "d" }],
  ] as const) {
    expect(seen(withEnvironment(text, env))).toMatchObject(expected);
    expect(withEnvironment(text, {})).toBe(text);
  }
  expect(withEnvironment("mydb", env)).toBe("mydb");
  expect(readSettings({ ...env, DATABASE_URL: "postgres://u@h/d?" }).DATABASE_URL).toContain(
    "sslmode=disable",
  );
  expect(() => readSettings({ DATABASE_URL: "postgres://u@h/d", PGSERVICE: "s" })).toThrow(
    "service (PGSERVICE)",
  );
});

test("the password comes from the first line of the password file that matches", async () => {
  await using folder = await temporaryFolder();
  const passfile = join(folder.path, ".pgpass");
  await Bun.write(passfile, "# h:*:*:*:comment\nh:1:d:u:a\\:b\\\\c\n*:*:*:u:any\nlocalhost:*:*:v:socket\n");
  const passOf = (text: string) => addressOf(withEnvironment(text, { HOME: folder.path })).options.pass();
  await chmod(passfile, 0o644);
  expect(passOf("postgres://u@h:1/d")).toBe("");
  expect(addressOf(`postgres://u@h/d?passfile=${passfile}`).ignored).toEqual(["passfile"]);
  await chmod(passfile, 0o600);
  expect(passOf("postgres://u@h:1/d")).toBe("a:b\\c");
  expect(passOf("postgres://u@h:2/d")).toBe("any");
  expect(passOf("postgres://v@/d")).toBe("socket");
  expect(passOf("postgres://w@h/d")).toBe("");
  expect(passOf("postgres://u:given@h:1/d")).toBe("given");
});

test("certificates in ~/.postgresql are used", async () => {
  await using folder = await temporaryFolder();
  await mkdir(join(folder.path, ".postgresql"));
  for (const name of ["root.crt", "postgresql.crt", "postgresql.key"]) {
    await Bun.write(join(folder.path, ".postgresql", name), name);
  }
  const ssl = (query: string) =>
    addressOf(withEnvironment(`postgres://u@h/d${query}`, { HOME: folder.path })).options.ssl;
  expect(ssl("?sslmode=verify-full")).toMatchObject({
    rejectUnauthorized: true,
    ca: "root.crt",
    cert: "postgresql.crt",
    key: "postgresql.key",
  });
});

test("PostgreSQL's programs get the same address and search path by the environment", () => {
  const url = "postgres://u:p%40@h:1/d?sslmode=require&options=-c%20a%3Db&search_path=a,%20b&keepalives=0";
  expect(libpqEnvironment(url)).toEqual({
    PGUSER: "u",
    PGPASSWORD: "p@",
    PGHOST: "h",
    PGPORT: "1",
    PGDATABASE: "d",
    PGSSLMODE: "require",
    PGOPTIONS: "-c a=b -c search_path=a,\\ b",
  });
});
