// Data: the newest dead letters, with the reason that the worker gave, and the way back.
import { el, moment, number, say } from "./dom.js";
import { ask } from "./server.js";
import { t } from "./words.js";
import { confirm } from "./confirm.js";

export function dataPage(main, path, ended) {
  const reasons = el("div", { class: "bars" }), list = el("ul", { class: "plain letters" });
  const send = el("button", { class: "main", id: "replay", disabled: true, onclick: () => replay(picked()) });
  const every = el("input", { type: "checkbox", id: "every", onchange: () => pick(() => every.checked) });
  let letters = [];
  main.append(
    el("div", { class: "head" }, el("h1", {}, t("data")), el("p", { class: "soft" }, t("dataAbout")), el("button", { onclick: read }, t("refresh"))),
    el("section", { class: "card" }, el("h2", {}, t("reasons")), reasons),
    el("section", { class: "card" }, el("div", { class: "head" }, el("h2", {}, t("newest")), el("label", { class: "check" }, every, t("chooseAll")), send),
      el("p", { class: "soft" }, t("replayNote")), list),
  );

  const boxes = () => [...list.querySelectorAll("input")];
  const picked = () => letters.filter((_, i) => boxes()[i]?.checked);
  function pick(wanted) {
    boxes().forEach((box, i) => (box.checked = wanted(letters[i])));
    count();
  }
  function count() {
    const chosen = picked().length;
    send.disabled = !chosen;
    send.textContent = t("replayMany", number(chosen));
    every.checked = chosen > 0 && chosen === letters.length;
    every.indeterminate = chosen > 0 && chosen < letters.length;
  }

  async function replay(chosen) {
    if (!(await confirm(t("replayAsk", number(chosen.length)), t("replay")))) return;
    const done = await ask("v1/console/dead-letters/replay", { letters: chosen.map((letter) => letter.at_letter) });
    say(t("replayed", number(done.total), number(chosen.length)), done.total < chosen.length);
    await read();
  }

  async function read() {
    const said = await ask("v1/console/dead-letters");
    if (ended.aborted) return;
    letters = said.letters;
    const counts = Object.entries(said.reasons).sort((a, b) => b[1] - a[1]), most = Math.max(1, ...counts.map(([, count]) => count));
    reasons.replaceChildren(...counts.flatMap(([name, count]) => {
      const bar = el("span", { class: "bar" });
      bar.style.width = `${(100 * count) / most}%`;
      return [el("button", { class: "chip code", title: t("chooseReason"), onclick: () => pick((letter) => letter.reason === name) }, name), bar, el("small", {}, number(count))];
    }));
    if (!counts.length) reasons.replaceChildren(el("span", { class: "soft" }, t("noLetters")));
    list.replaceChildren(...letters.map((letter) => el("li", {},
      el("span", {}, el("label", { class: "check" }, el("input", { type: "checkbox", onchange: count, "aria-label": t("choose", letter.reason) }), el("span", { class: "tag bad" }, letter.reason)), " ", letter.message),
      el("small", {}, moment(letter.at)),
      el("button", { class: "chip", onclick: () => replay([letter]) }, t("replay")),
      el("details", {}, el("summary", {}, `${letter.topic} · ${t("place")} ${letter.partition}/${letter.offset}`),
        el("p", { class: "soft" }, `${t("key")}: `, el("span", { class: "code" }, letter.key || "∅"), ` · ${t("bytes", number(letter.bytes))}`),
        el("pre", {}, readable(letter.text) || "∅")))));
    count();
  }
  read();
}

/** JSON with line ends; anything else as it stands. */
function readable(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
