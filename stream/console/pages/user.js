// User: what the profile remembers, and what the releases make of it.
import { el, moment, number, say, short } from "./dom.js";
import { ask } from "./server.js";
import { t } from "./words.js";
import { confirm } from "./confirm.js";
import { itemMap } from "./map.js";

const TAGS = 12;

export async function userPage(main, path, ended) {
  const who = el("input", { value: path, maxlength: 256, autocomplete: "off" });
  const recent = el("p", { class: "soft" }), body = el("div", { class: "stack" });
  main.append(
    el("div", { class: "head" }, el("h1", {}, t("user")), el("p", { class: "soft" }, t("userAbout"))),
    el("section", { class: "card" },
      el("form", { class: "row", onsubmit: (event) => { event.preventDefault(); location.hash = `#/user/${encodeURIComponent(who.value.trim())}`; } },
        el("label", {}, t("who"), who), el("button", { class: "main" }, t("look"))), recent),
    body,
  );
  const { users } = await ask("v1/console/users");
  recent.replaceChildren(t("recent"), " ", ...users.slice(0, 8).flatMap((name) => [
    el("a", { href: `#/user/${encodeURIComponent(name)}` }, name), " "]));
  if (!path) return;
  body.replaceChildren(el("p", { class: "empty" }, t("loading")));
  const name = encodeURIComponent(path);
  const [profile, insight] = await Promise.all([ask(`v1/profiles/${name}`), ask(`v1/console/insight/${name}`)].map((asked) => asked.catch((error) => error)));
  if (ended.aborted) return;
  if (profile instanceof Error) {
    body.replaceChildren(el("p", { class: "empty" }, profile.message));
    return;
  }
  const seen = !(insight instanceof Error);
  body.replaceChildren(...[
    el("section", { class: "card" },
      el("div", { class: "tiles" },
        fact("knownEvents", number(profile.events)), fact("lastSeen", moment(profile.last_ts)), fact("space", short(profile.release_id))),
      profile.interests ? el("p", {}, el("small", {}, t("declaredInterests"), ": "), profile.interests) : null,
      el("p", { class: "row" }, el("a", { href: `#/try/${name}` }, t("tryAs")),
        el("button", { class: "danger", onclick: erase }, t("erase")))),
    seen ? null : el("p", { class: "card" }, t("noInsight", insight.message)),
    el("div", { class: "pair" },
      el("div", { class: "stack" }, seen ? itemMap(insight.map) : null, tagsCard(profile, seen ? insight.sessions.session_events : 0)),
      el("div", { class: "stack" }, seen ? sessionsCard(insight.sessions) : null, historyCard(profile))),
    seen ? swapCard(insight) : null,
  ].filter(Boolean));

  async function erase() {
    if (!(await confirm(t("eraseAsk", path), t("erase")))) return;
    await ask("v1/erasures", { user_id: path, reason: "asked in the console" });
    say(t("erased"));
  }
}

const fact = (name, value) => el("div", { class: "tile" }, el("b", { class: "text" }, value), el("small", {}, t(name)));
const sessionKeys = () => el("div", { class: "legend" }, key("session"), key("longTerm", "other"));
const key = (name, kind = "") => el("span", {}, el("i", { class: kind }), t(name));

function bar(share, kind) {
  const made = el("span", { class: kind });
  made.style.width = `${Math.max(0, 100 * share)}%`;
  return share > 0 ? made : null;
}

/** Tags of remembered events: the last session's against those of all before. */
function tagsCard(profile, inSession) {
  const session = new Map(), earlier = new Map();
  profile.history.forEach((past, place) => {
    const counts = place < inSession ? session : earlier;
    for (const tag of past.tags ?? []) counts.set(tag, (counts.get(tag) ?? 0) + 1);
  });
  const tags = Object.entries(profile.tags).slice(0, TAGS), most = Math.max(1, ...tags.map(([, count]) => count));
  return el("section", { class: "card" }, el("h2", {}, t("tagsTitle")), sessionKeys(),
    el("div", { class: "bars" }, tags.flatMap(([tag, count]) => [
      el("span", {}, tag),
      el("span", { class: "two" }, bar((session.get(tag) ?? 0) / most, "bar"), bar((earlier.get(tag) ?? 0) / most, "bar other")),
      el("small", {}, number(count))])));
}

/** What the last session and what came before add to each recommended item's score. */
function sessionsCard(found) {
  const most = Math.max(1e-9, ...found.items.flatMap((item) => [Math.abs(item.session), Math.abs(item.earlier)]));
  const part = (value, kind) => bar(Math.abs(value) / most, `bar ${kind}${value < 0 ? " less" : ""}`);
  return el("section", { class: "card", id: "sessions" }, el("h2", {}, t("sessionsTitle")),
    el("p", { class: "soft" }, t("sessionsCount", number(found.session_events), number(found.earlier_events)), " ",
      found.session_weight === null ? "" : t("sessionsWeight", number(found.session_weight * 100))),
    sessionKeys(),
    el("div", { class: "bars" }, found.items.flatMap((item) => [
      el("span", { class: "name", title: item.title || item.item_id }, item.title || item.item_id),
      el("span", { class: "two" }, part(item.session, ""), part(item.earlier, "other")),
      el("small", { class: "two" }, el("span", {}, signed(item.session)), el("span", {}, signed(item.earlier)))])));
}

const signed = (value) => (value > 0 ? "+" : "") + number(value, 2);

function historyCard(profile) {
  return el("section", { class: "card" }, el("h2", {}, t("history")),
    el("ul", { class: "plain limited", tabindex: 0, "aria-label": t("history") }, profile.history.map((past) => el("li", {},
      el("span", {}, past.title || past.text || past.item_id || "?", " ", el("span", { class: "tag" }, past.action), past.value ? ` ${number(past.value, 1)}` : ""),
      el("small", {}, moment(past.ts))))));
}

/** The same events read by the release before and by the one that serves. */
function swapCard(insight) {
  const swap = insight.swap;
  if (!swap) return el("section", { class: "card", id: "swap" }, el("h2", {}, t("swapTitle")), el("p", { class: "soft" }, insight.swap_missing || t("swapNone")));
  const was = new Map(swap.before.items.map((item, rank) => [item.item_id, rank]));
  const kept = swap.after.items.filter((item) => was.has(item.item_id)).length;
  const now = new Set(swap.after.items.map((item) => item.item_id));
  const list = (side, mark) => el("div", {}, el("p", {}, el("span", { class: "code", title: side.release_id }, side.release_id)),
    el("ol", { class: "items", "data-release": side.release_id }, side.items.map((item, rank) => el("li", { "data-item": item.item_id }, el("span", { class: "rank" }, rank + 1),
      el("span", {}, item.title || item.item_id), mark(item, rank)))));
  const moved = (item, rank) => {
    const before = was.get(item.item_id);
    if (before === undefined) return el("span", { class: "change" }, t("isNew"));
    return before === rank ? el("span", { class: "change down" }, "=") : el("span", { class: before > rank ? "change" : "change down" }, before > rank ? `↑${before - rank}` : `↓${rank - before}`);
  };
  return el("section", { class: "card", id: "swap" }, el("h2", {}, t("swapTitle")),
    el("p", { class: "soft" }, t("swapNote", moment(swap.decided_at), number(kept), number(swap.after.items.length))),
    el("div", { class: "pair" },
      el("div", {}, el("h3", {}, t("swapBefore")), list(swap.before, (item) => (now.has(item.item_id) ? null : el("span", { class: "change down" }, t("isGone"))))),
      el("div", {}, el("h3", {}, t("swapAfter")), list(swap.after, moved))));
}
