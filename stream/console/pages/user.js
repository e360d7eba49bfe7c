// User: what the profile remembers, the last session against what came before it.
import { el, moment, number, say, short } from "./dom.js";
import { ask } from "./server.js";
import { t } from "./words.js";
import { confirm } from "./confirm.js";

const SESSION_GAP_S = 30 * 60;
const TAGS = 12;

export async function userPage(main, path, ended) {
  const who = el("input", { value: path, maxlength: 256, autocomplete: "off" });
  const recent = el("p", { class: "soft" }), body = el("div", { class: "pair" });
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

  let profile;
  try {
    profile = await ask(`v1/profiles/${encodeURIComponent(path)}`);
  } catch (error) {
    body.replaceChildren(el("p", { class: "empty" }, error.message));
    return;
  }
  const last = profile.history.length ? profile.history[0].ts : 0;
  let edge = last, inSession = true;
  const session = new Map(), earlier = new Map();
  for (const past of profile.history) {
    inSession &&= edge - past.ts <= SESSION_GAP_S;
    edge = past.ts;
    for (const tag of past.tags ?? []) {
      const counts = inSession ? session : earlier;
      counts.set(tag, (counts.get(tag) ?? 0) + 1);
    }
  }
  const tags = Object.entries(profile.tags).slice(0, TAGS), most = Math.max(1, ...tags.map(([, count]) => count));
  const bar = (count, kind) => {
    const made = el("span", { class: kind });
    made.style.width = `${(100 * count) / most}%`;
    return count ? made : null;
  };
  body.replaceChildren(
    el("div", { class: "stack" }, el("section", { class: "card" },
      el("div", { class: "tiles" },
        fact("knownEvents", number(profile.events)), fact("lastSeen", moment(profile.last_ts)), fact("space", short(profile.release_id))),
      profile.interests ? el("p", {}, el("small", {}, t("declaredInterests"), ": "), profile.interests) : null,
      el("p", { class: "row" }, el("a", { href: `#/try/${encodeURIComponent(path)}` }, t("tryAs")),
        el("button", { class: "danger", onclick: erase }, t("erase")))),
    el("section", { class: "card" }, el("h2", {}, t("interestMap")),
      el("div", { class: "legend" }, key("var(--accent)", t("session")), key("var(--second)", t("longTerm"))),
      el("div", { class: "bars" }, tags.flatMap(([tag, count]) => [
        el("span", {}, tag),
        el("span", { class: "two" }, bar(session.get(tag) ?? 0, "bar"), bar(earlier.get(tag) ?? 0, "bar other")),
        el("small", {}, number(count))])))),
    el("section", { class: "card" }, el("h2", {}, t("history")),
      el("ul", { class: "plain" }, profile.history.map((past) => el("li", {},
        el("span", {}, past.title || past.item_id || "?", " ", el("span", { class: "tag" }, past.action), past.value ? ` ${number(past.value, 1)}` : ""),
        el("small", {}, moment(past.ts)))))),
  );

  async function erase() {
    if (!(await confirm(t("eraseAsk", path), t("erase")))) return;
    await ask("v1/erasures", { user_id: path, reason: "asked in the console" });
    say(t("erased"));
  }
}

const fact = (name, value) => el("div", { class: "tile" }, el("b", { class: "text" }, value), el("small", {}, t(name)));

function key(colour, text) {
  const made = el("i");
  made.style.background = colour;
  return el("span", {}, made, text);
}
