import { Presets, SingleBar } from "cli-progress";

/** On standard error, if that is a terminal. `text` is shown after the bar. */
export function progressBar(total: number, label = "") {
  const format = `${label}{bar} {percentage} %  {text}`;
  const bar = new SingleBar({ stream: process.stderr, hideCursor: true, format }, Presets.shades_classic);
  if (process.stderr.isTTY) bar.start(total, 0, { text: "" });
  return {
    update: (done: number, text = "") => bar.update(done, { text }),
    stop: () => bar.stop(),
  };
}
