// Runs in the browser, and returns what a reader of report.html sees (page.browser.ts).
(() => {
  const shown = (element) => element.getClientRects().length > 0;
  const charts = [...document.querySelectorAll("figure")].map((figure) => {
    const svgs = [...figure.querySelectorAll("svg")].filter(shown);
    const texts = svgs.flatMap((svg) => [...svg.querySelectorAll("text")]);
    const boxes = texts.map((element) => ({
      text: element.textContent ?? "",
      box: element.getBoundingClientRect(),
    }));
    const overlaps = boxes.flatMap((a, index) =>
      boxes
        .slice(index + 1)
        .filter(
          (b) =>
            Math.min(a.box.right, b.box.right) - Math.max(a.box.left, b.box.left) > 1 &&
            Math.min(a.box.bottom, b.box.bottom) - Math.max(a.box.top, b.box.top) > 3,
        )
        .map((b) => `${a.text} / ${b.text}`),
    );
    const frame = figure.getBoundingClientRect();
    return {
      title: figure.querySelector("h2, h3")?.textContent ?? "",
      svgs: svgs.length,
      // Lines and areas that are not empty, and whose colour the style sheet has resolved.
      drawn: svgs
        .flatMap((svg) => [...svg.querySelectorAll("path")])
        .filter((path) => {
          const { fill, stroke } = getComputedStyle(path);
          const box = path.getBBox();
          return box.width + box.height > 20 && [fill, stroke].some((color) => color.startsWith("rgb"));
        }).length,
      smallest: Math.min(...texts.map((element) => element.getBoundingClientRect().height)),
      overlaps,
      outside: boxes
        .filter(({ box }) => box.left < frame.left || box.right > frame.right)
        .map(({ text }) => text),
    };
  });
  return {
    charts,
    scrollsSideways: document.documentElement.scrollWidth > window.innerWidth,
    background: getComputedStyle(document.body).backgroundColor,
    text: document.body.textContent,
  };
})();
