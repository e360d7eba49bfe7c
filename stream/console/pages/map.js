// Items on a plane, in SVG. One tab stop: arrow keys go through the user's own points.
import { el, number, svg } from "./dom.js";
import { t } from "./words.js";

const SIZE = 400, EDGE = 16;
const RADIUS = { near: 3, history: 5.5, recommended: 6.5 };

export function itemMap(map) {
  const at = (value) => EDGE + ((value + 1) / 2) * (SIZE - 2 * EDGE);
  const caption = el("p", { class: "caption", "aria-live": "polite" }, t("mapHint"));
  const points = [...map.points].sort((a, b) => RADIUS[a.kind] - RADIUS[b.kind]);
  const dots = points.map((point) => svg("circle", {
    class: `dot ${point.kind}${point.in_session ? " session" : ""}`, "data-item": point.item_id,
    cx: at(point.x), cy: at(-point.y), r: RADIUS[point.kind], onpointerenter: () => choose(point), onclick: () => choose(point),
  }));
  const own = points.filter((point) => point.kind !== "near");
  const plot = svg("svg", { class: "map", viewBox: `0 0 ${SIZE} ${SIZE}`, role: "img", tabindex: 0, "aria-label": t("mapLabel", own.length), onkeydown: step },
    ...dots);
  let chosen = -1;

  function choose(point) {
    chosen = own.indexOf(point);
    dots.forEach((dot, i) => dot.classList.toggle("chosen", points[i] === point));
    caption.replaceChildren(el("b", {}, point.title || point.item_id), ` · ${t(kindOf(point))}`);
  }

  function step(event) {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!by || !own.length) return;
    event.preventDefault();
    choose(own[(Math.max(chosen, by > 0 ? -1 : 0) + by + own.length) % own.length]);
  }

  const kinds = [["history session", "session"], ["history", "longTerm"], ["recommended", "recommendedKind"], ["near", "nearKind"]];
  return el("section", { class: "card" }, el("h2", {}, t("interestMap")),
    el("p", { class: "soft" }, t("mapNote", number(map.explained * 100)), map.left_out ? ` ${t("mapLeftOut", number(map.left_out))}` : ""),
    el("div", { class: "legend" }, kinds.map(([kind, name]) => el("span", {},
      svg("svg", { class: "key", viewBox: "0 0 16 16", "aria-hidden": "true" }, svg("circle", { class: `dot ${kind}`, cx: 8, cy: 8, r: 6 })), t(name)))),
    plot, caption);
}

const kindOf = (point) => (point.kind === "history" ? (point.in_session ? "session" : "longTerm") : point.kind === "recommended" ? "recommendedKind" : "nearKind");
