// Ends when the clocks of both instances are OFFSET seconds ahead of the real one.
export {};

const patienceMs = 5000;
const [given = "", ...more] = process.argv.slice(2);
if (given === "--help" || given === "-h") {
  console.log("Usage: await-clock.ts SECONDS   run.ts starts it in a container");
  process.exit(0);
}
if (!/^-?\d+$/.test(given) || more.length > 0) {
  console.error("SECONDS: expected one whole number; see --help");
  process.exit(2);
}
const offsetS = Number(given);
const patienceEnds = performance.now() + patienceMs;

for (const instance of ["api1", "api2"]) {
  for (;;) {
    const { headers } = await fetch("http://x/healthz", { unix: `/run/api/${instance}.sock` });
    const told = headers.get("date");
    const aheadS = (Date.parse(told as string) - Date.now()) / 1000;
    if (Math.abs(aheadS - offsetS) <= 2) break;
    if (performance.now() > patienceEnds) throw new Error(`${instance}: it is ${told}, after ${offsetS} s`);
    await Bun.sleep(50);
  }
}
