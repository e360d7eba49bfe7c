// The forgetting matrix as a heat map: a table whose cells are coloured by their figures.
import { el, number, short } from "./dom.js";
import { t } from "./words.js";

const MOST = 55; // percent of colour: more would hide the figures

export function heatMap(told) {
  const all = told.matrix.flat().filter((value) => value !== null);
  const least = Math.min(...all), span = Math.max(...all) - least || 1;
  const periods = Math.max(...told.matrix.map((row) => row.length));

  function cell(value, own) {
    const made = el("td", { class: own ? "own" : null }, value === null || value === undefined ? "·" : number(value, 3));
    if (typeof value === "number") made.style.background = `color-mix(in srgb, var(--accent) ${Math.round(4 + ((value - least) / span) * MOST)}%, transparent)`;
    return made;
  }

  return el("div", { class: "scroll" }, el("table", { class: "heat" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, t("release")),
      Array.from({ length: periods }, (_, j) => el("th", { scope: "col" }, t("period", told.first_period + j))))),
    el("tbody", {}, told.matrix.map((row, i) => el("tr", {},
      el("th", { scope: "row", class: "code", title: told.releases[i] }, short(told.releases[i])),
      Array.from({ length: periods }, (_, j) => cell(row[j], j === row.length - 1)))))));
}
