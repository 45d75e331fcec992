// Ends when both instances tell a time that is so many seconds ahead of the real one.
export {};

const patienceMs = 5000;
const offsetS = Number(process.argv[2]);
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
