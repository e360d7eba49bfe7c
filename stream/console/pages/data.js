// Data: the newest dead letters, with the reason that the worker gave.
import { el, moment, number } from "./dom.js";
import { ask } from "./server.js";
import { t } from "./words.js";

export function dataPage(main, path, ended) {
  const reasons = el("div", { class: "bars" }), list = el("ul", { class: "plain" });
  main.append(
    el("div", { class: "head" }, el("h1", {}, t("data")), el("p", { class: "soft" }, t("dataAbout")), el("button", { onclick: read }, t("refresh"))),
    el("section", { class: "card" }, el("h2", {}, t("reasons")), reasons),
    el("section", { class: "card" }, el("h2", {}, t("newest")), list),
  );

  async function read() {
    const said = await ask("v1/console/dead-letters");
    const counts = Object.entries(said.reasons).sort((a, b) => b[1] - a[1]), most = Math.max(1, ...counts.map(([, count]) => count));
    reasons.replaceChildren(...counts.flatMap(([name, count]) => {
      const bar = el("span", { class: "bar" });
      bar.style.width = `${(100 * count) / most}%`;
      return [el("span", { class: "code" }, name), bar, el("small", {}, number(count))];
    }));
    if (!counts.length) reasons.replaceChildren(el("span", { class: "soft" }, t("noLetters")));
    list.replaceChildren(...said.letters.map((letter) => el("li", {},
      el("span", {}, el("span", { class: "tag bad" }, letter.reason), " ", letter.message),
      el("small", {}, moment(letter.at)),
      el("details", {}, el("summary", {}, `${letter.topic} · ${t("place")} ${letter.partition}/${letter.offset}`), el("pre", {}, letter.text || "∅")))));
  }
  read();
}
