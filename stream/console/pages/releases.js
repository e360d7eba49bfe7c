// Releases: each with parent, exams, figures and the reason of its last decision; promote, roll back, freeze.
import { el, moment, number, say, short } from "./dom.js";
import { ask } from "./server.js";
import { t } from "./words.js";
import { confirm } from "./confirm.js";
import { heatMap } from "./heat.js";

const figure = (value) => number(value, Number.isInteger(value) ? 0 : 4);
const BAD = ["refused", "rolled-back", "erased"];

export function releasesPage(main, path, ended) {
  const list = el("ol", { class: "timeline" });
  const back = el("button", { class: "danger", id: "rollback", disabled: true }, t("rollback"));
  const hold = el("button", { id: "freeze" }, t("freeze")), held = el("p", { class: "notice", id: "frozen", hidden: true });
  const matrix = el("section", { class: "card", id: "forgetting" });
  main.append(
    el("div", { class: "head" }, el("h1", {}, t("releases")), el("p", { class: "soft" }, t("releasesAbout")), el("span", { class: "row" }, hold, back)),
    held, matrix, el("section", { class: "card" }, el("h2", {}, t("timeline")), list),
  );
  let shown = "", drawn = null;

  async function readMatrix(release) {
    if (release === drawn) return;
    drawn = release;
    const about = [el("h2", {}, t("forgettingTitle")), el("p", { class: "soft" }, t("forgettingNote"))];
    try {
      const told = release && (await ask(`v1/console/forgetting/${encodeURIComponent(release)}`));
      matrix.replaceChildren(...about, told && told.matrix.length ? heatMap(told) : el("p", { class: "empty" }, t("forgettingNone")));
    } catch (error) {
      matrix.replaceChildren(...about, el("p", { class: "empty" }, error.message));
    }
  }

  async function read() {
    const said = await ask("v1/releases");
    readMatrix(said.serving);
    if (JSON.stringify(said) === shown) return;
    shown = JSON.stringify(said);
    back.disabled = said.releases.filter((notice) => ["serving", "retired"].includes(notice.status)).length < 2;
    back.onclick = () => rollback(said.serving);
    const frozen = said.frozen;
    held.hidden = !frozen;
    held.textContent = frozen ? t("frozen", moment(frozen.decided_at), frozen.reason || t("noReason")) : "";
    hold.textContent = t(frozen ? "unfreeze" : "freeze");
    hold.onclick = () => freeze(!frozen);
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
      exams(notice.metrics ?? {}),
      names.length ? el("details", { "data-release": notice.release_id, open: isOpen },
        el("summary", {}, `${t("metrics")} (${names.length})`),
        el("div", { class: "scroll" }, el("table", {},
          el("thead", {}, el("tr", {}, el("th", {}, ""), el("th", { class: "number" }, short(notice.release_id)), el("th", { class: "number" }, parent ? short(parent.release_id) : t("parent")))),
          el("tbody", {}, names.map((name) => el("tr", {}, el("td", { class: "code" }, name),
            el("td", { class: "number" }, figure(notice.metrics[name])),
            el("td", { class: "number" }, figure(parent?.metrics?.[name])))))))) : null);
  }

  async function freeze(active) {
    const answer = await confirm(t(active ? "freezeAsk" : "unfreezeAsk"), t(active ? "freeze" : "unfreeze"), t("whyField"));
    if (!answer) return;
    await ask("v1/console/freeze", { active, reason: answer.text });
    say(t(active ? "isFrozen" : "isUnfrozen"));
    await read();
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

/** What the gate and the rollout weighed: exam by exam, the candidate against what it would replace. */
function exams(metrics) {
  const found = Object.keys(metrics).map((name) => /^(.+)_ndcg10_candidate$/.exec(name)?.[1]).filter((exam) => exam && !exam.endsWith("_live")).sort().reverse();
  const rows = found.map((exam) => {
    const mine = metrics[`${exam}_ndcg10_candidate`], theirs = metrics[`${exam}_ndcg10_parent`] ?? metrics[`${exam}_ndcg10_rival`];
    const events = metrics[`${exam}_events`] ?? metrics[`${exam}_events_candidate`], error = metrics[`${exam}_standard_error`];
    if (theirs === undefined || events === 0) return null;
    const change = theirs ? (mine / theirs - 1) * 100 : null;
    return el("tr", {}, el("th", { scope: "row" }, t(`exam_${exam}`) === `exam_${exam}` ? exam.replaceAll("_", " ") : t(`exam_${exam}`)),
      el("td", { class: "number" }, number(theirs, 4)), el("td", { class: "number" }, number(mine, 4)),
      el("td", { class: `number ${change > 0 ? "up" : ""}` }, change === null ? "–" : `${change > 0 ? "+" : ""}${number(change, 1)}%`),
      el("td", { class: "number" }, error ? `±${number(error, 4)}` : "–"), el("td", { class: "number" }, number(events)));
  }).filter(Boolean);
  if (!rows.length) return null;
  const heads = ["exam", "ofParent", "ofCandidate", "changeHead", "errorHead", "eventsHead"];
  return el("div", { class: "scroll" }, el("table", { class: "exams" },
    el("thead", {}, el("tr", {}, heads.map((name, i) => el("th", { scope: "col", class: i ? "number" : null }, t(name))))), el("tbody", {}, rows)));
}
