// A moving line chart in SVG: a few hundred points, redrawn once a second.
import { el, number, svg } from "./dom.js";
import { t } from "./words.js";

const HEIGHT = 190, LEFT = 44, BOTTOM = 18, TOP = 8;
const COLOURS = ["var(--accent)", "var(--second)", "var(--third)", "var(--soft)"];

/** The next round number. */
function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

/** A card with a title; `draw(times, lines)` with lines of {name, values}, null where none. */
export function chart(title, digits = 0, note = "") {
  const plot = svg("svg", { role: "img", "aria-label": title });
  const legend = el("div", { class: "legend" });
  const card = el("section", { class: "card chart" }, el("h2", {}, title), note && el("p", { class: "soft" }, note), plot, legend);

  function draw(times, lines) {
    const all = lines.flatMap((line) => line.values).filter((value) => value !== null);
    if (!all.length) {
      legend.replaceChildren(el("span", {}, t("noData")));
      plot.replaceChildren();
      return;
    }
    const width = plot.clientWidth || 500;
    plot.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const top = ceiling(Math.max(...all)), from = times[0], span = Math.max(times.at(-1) - from, 10);
    const x = (time) => LEFT + ((time - from) / span) * (width - LEFT - 4);
    const y = (value) => TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM);
    const marks = [0, 0.5, 1].flatMap((part) => [
      svg("line", { class: "grid", x1: LEFT, x2: width - 4, y1: y(part * top), y2: y(part * top) }),
      svg("text", { x: LEFT - 6, y: y(part * top) + 4, "text-anchor": "end" }, number(part * top, part * top < 10 ? Math.max(digits, top < 10 ? 1 : 0) : 0)),
    ]);
    const ago = svg("text", { x: LEFT, y: HEIGHT - 3 }, `−${number(span)} s`);
    const paths = lines.map((line, index) => {
      let d = "", drawing = false;
      line.values.forEach((value, i) => {
        if (value === null) { drawing = false; return; }
        d += `${drawing ? "L" : "M"}${x(times[i]).toFixed(1)} ${y(value).toFixed(1)}`;
        drawing = true;
      });
      return svg("path", { d, stroke: COLOURS[index % COLOURS.length] });
    });
    plot.replaceChildren(...marks, ago, ...paths);
    legend.replaceChildren(...lines.map((line, index) => {
      const key = el("i");
      key.style.background = COLOURS[index % COLOURS.length];
      return el("span", {}, key, `${line.name} `, el("b", {}, number(line.values.at(-1), digits)));
    }));
  }
  return { card, draw };
}
