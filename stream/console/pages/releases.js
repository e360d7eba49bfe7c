// Releases: each with parent, figures and the reason of its last decision; promote and roll back.
import { el, moment, number, say, short } from "./dom.js";
import { ask } from "./server.js";
import { t } from "./words.js";
import { confirm } from "./confirm.js";

const figure = (value) => number(value, Number.isInteger(value) ? 0 : 4);
const BAD = ["refused", "rolled-back", "erased"];

export function releasesPage(main, path, ended) {
  const list = el("ol", { class: "timeline" });
  const back = el("button", { class: "danger", id: "rollback", disabled: true }, t("rollback"));
  main.append(
    el("div", { class: "head" }, el("h1", {}, t("releases")), el("p", { class: "soft" }, t("releasesAbout")), back),
    el("section", { class: "card" }, list),
  );
  let shown = "";

  async function read() {
    const said = await ask("v1/releases");
    if (JSON.stringify(said) === shown) return;
    shown = JSON.stringify(said);
    back.disabled = said.releases.filter((notice) => ["serving", "retired"].includes(notice.status)).length < 2;
    back.onclick = () => rollback(said.serving);
    const open = new Set([...list.querySelectorAll("details[open]")].map((each) => each.dataset.release));
    list.replaceChildren(...said.releases.map((notice) => row(notice, said, open.has(notice.release_id))));
    if (!said.releases.length) list.replaceChildren(el("p", { class: "empty" }, t("noData")));
  }

  function row(notice, said, isOpen) {
    const isServing = notice.release_id === said.serving, isBad = BAD.includes(notice.status);
    const parent = said.releases.find((each) => each.release_id === notice.parent_id);
    const names = Object.keys(notice.metrics ?? {}).sort();
    return el("li", { class: isServing ? "serving" : isBad ? "bad" : null, "data-release": notice.release_id },
      el("div", { class: "head" },
        el("b", { class: "code" }, notice.release_id),
        el("span", { class: isBad ? "tag bad" : isServing ? "tag" : "tag plain" }, notice.status === "serving" && !isServing ? t("servedBefore") : notice.status, notice.share ? ` ${t("share", `${number(notice.share * 100)}%`)}` : ""),
        el("small", {}, moment(notice.decided_at)),
        isServing ? null : el("button", { class: "chip", onclick: () => promote(notice) }, t("promote"))),
      el("p", {}, notice.reason || "–"),
      el("p", { class: "soft" }, `${t("parent")}: `, notice.parent_id ? el("span", { class: "code" }, notice.parent_id) : t("none")),
      names.length ? el("details", { "data-release": notice.release_id, open: isOpen },
        el("summary", {}, `${t("metrics")} (${names.length})`),
        el("div", { class: "scroll" }, el("table", {},
          el("thead", {}, el("tr", {}, el("th", {}, ""), el("th", { class: "number" }, short(notice.release_id)), el("th", { class: "number" }, parent ? short(parent.release_id) : t("parent")))),
          el("tbody", {}, names.map((name) => el("tr", {}, el("td", { class: "code" }, name),
            el("td", { class: "number" }, figure(notice.metrics[name])),
            el("td", { class: "number" }, figure(parent?.metrics?.[name])))))))) : null);
  }

  async function promote(notice) {
    const wasBad = ["refused", "rolled-back"].includes(notice.status);
    const question = t("promoteAsk", notice.release_id) + (wasBad ? ` ${t("forceAsk", notice.status)}` : "");
    if (!(await confirm(question, t("promote")))) return;
    say(t("done", (await ask("v1/console/promote", { release_id: notice.release_id, force: wasBad })).release_id));
    await read();
  }

  async function rollback(serving) {
    if (!(await confirm(t("rollbackAsk", serving, serving), t("rollback")))) return;
    say(t("done", (await ask("v1/console/rollback", {})).release_id));
    await read();
  }

  read();
  const again = setInterval(read, 2000);
  ended.addEventListener("abort", () => clearInterval(again));
}
