// Passes everything on between the instances and Postgres. At SIGUSR2 each connection is marked: of its next answer
// only the first half gets through, then it is closed on both sides. At SIGSTOP the peer is frozen, as with a network
// that drops everything.
import { rmSync } from "node:fs";
import net from "node:net";

const [given] = process.argv.slice(2);
if (given !== undefined) {
  const help = given === "--help" || given === "-h";
  if (help) console.log("Usage: proxy.ts   run.ts starts it in a container");
  else console.error(`${given}: expected no argument; see --help`);
  process.exit(help ? 0 : 2);
}

const from = "/run/api/.s.PGSQL.5432";
const to = "/run/postgresql/.s.PGSQL.5432";
const open = new Set<net.Socket>();
const marked = new Set<net.Socket>();

rmSync(from, { force: true });
net
  .createServer((client) => {
    const postgres = net.connect(to);
    const both = [client, postgres];
    open.add(client);
    client.pipe(postgres);
    postgres.on("data", (answer: Buffer) => {
      if (marked.delete(client)) {
        client.write(answer.subarray(0, answer.length / 2), () => {
          for (const socket of both) socket.destroy();
        });
      } else if (!client.write(answer)) {
        postgres.pause();
        client.once("drain", () => postgres.resume());
      }
    });
    for (const socket of both) {
      socket.on("error", () => {}); // a close follows
      socket.on("close", () => {
        open.delete(client);
        marked.delete(client);
        for (const each of both) each.destroy();
      });
    }
  })
  .listen(from);

process.on("SIGUSR2", () => {
  for (const client of open) marked.add(client);
});
