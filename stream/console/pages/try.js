// Try it: act as a user; the recommendations change as they would in an application.
import { el, moment, number, say, short } from "./dom.js";
import { ask, follow } from "./server.js";
import { t } from "./words.js";

const OFTEN = ["view", "click", "like", "dislike"];

export async function tryPage(main, path, ended) {
  let user = path || sessionStorage.getItem("driftline-user") || "";
  let clicked = 0, before = new Map(), watching = new AbortController();

  const who = el("input", { value: user, maxlength: 256, autocomplete: "off", id: "who" });
  const words = el("textarea", { rows: 2, placeholder: t("interestsHint"), id: "words" });
  const recent = el("p", { class: "soft" });
  const found = el("ul", { class: "plain" }), answer = el("ol", { class: "items", id: "recommended" });
  const about = el("p", { class: "soft", id: "about", "aria-live": "polite" }, t("chooseUser"));
  const known = el("div", { class: "soft" }, t("chooseUser"));
  const search = el("input", { type: "search", autocomplete: "off", id: "search", oninput: () => { clearTimeout(waiting); waiting = setTimeout(list, 150); } });
  let waiting = 0;

  main.append(
    el("div", { class: "head" }, el("h1", {}, t("try")), el("p", { class: "soft" }, t("tryAbout"))),
    el("section", { class: "card" },
      el("form", { class: "row", onsubmit: (event) => { event.preventDefault(); choose(who.value.trim()); } },
        el("label", {}, t("who"), who), el("button", { class: "main" }, t("use")),
        el("button", { type: "button", id: "new", onclick: () => choose(`guest-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`) }, t("newUser"))),
      recent,
      el("form", { class: "row", onsubmit: declare }, el("label", {}, t("interests"), words), el("button", {}, t("declare")))),
    el("div", { class: "pair" },
      el("section", { class: "card" }, el("h2", {}, t("catalogue")), el("label", {}, t("search"), search), found),
      el("div", { class: "stack first" },
        el("section", { class: "card" }, el("h2", {}, t("recommendedNow")), about, answer),
        el("section", { class: "card", id: "profile" }, el("h2", {}, t("profileNow")), known))),
  );

  const { actions } = await ask("v1/console/about");
  const often = OFTEN.filter((name) => name in actions), rest = Object.keys(actions).filter((name) => !often.includes(name)).sort();

  async function recently() {
    const { users } = await ask("v1/console/users");
    recent.replaceChildren(t("recent"), " ", ...users.slice(0, 8).flatMap((name) => [
      el("button", { type: "button", class: "chip", onclick: () => choose(name) }, name), " "]));
  }

  async function choose(name) {
    if (!name) return;
    user = who.value = name;
    sessionStorage.setItem("driftline-user", name);
    before = new Map();
    clicked = 0;
    watching.abort();
    watching = new AbortController();
    follow(`v1/console/watch/${encodeURIComponent(name)}`, watching.signal, (news) => {
      if (news === "recommendation") refresh();
      if (news === "profile") showProfile();
    });
    answer.replaceChildren();
    about.textContent = t("loading");
    showProfile();
    await refresh();
  }

  async function showProfile() {
    let profile = null;
    try {
      profile = await ask(`v1/profiles/${encodeURIComponent(user)}`);
    } catch (error) {
      if (error.status !== 404) throw error;
    }
    if (!profile) return known.replaceChildren(t("noProfile"));
    const tags = Object.entries(profile.tags).slice(0, 8);
    known.replaceChildren(
      el("p", {}, `${t("knownEvents")}: `, el("b", {}, number(profile.events)), profile.interests ? ` · ${t("declaredInterests")}: ${profile.interests}` : ""),
      el("p", {}, tags.map(([tag, count]) => [el("span", { class: "tag plain" }, `${tag} ${number(count)}`), " "])),
      el("ul", { class: "plain" }, profile.history.slice(0, 5).map((past) => el("li", {},
        el("span", {}, past.title || past.text || past.item_id || "?", " ", el("span", { class: "tag" }, past.action)), el("small", {}, moment(past.ts))))),
      el("p", {}, el("a", { href: `#/user/${encodeURIComponent(user)}` }, t("wholeProfile"))));
  }

  async function declare(event) {
    event.preventDefault();
    if (!user) return say(t("chooseUser"), true);
    await ask("v1/users", { user_id: user, interests: words.value.trim() });
    say(t("declared"));
    setTimeout(() => refresh(true), 1200);
  }

  async function act(item, action) {
    if (!user) return say(t("chooseUser"), true);
    clicked = performance.now();
    const event = { user_id: user, item_id: item.item_id, action };
    if (action === "rate") event.value = 5;
    await ask("v1/events", event);
    say(t("sent", `${action} · ${item.title || item.item_id}`));
  }

  function why(reason) {
    if (reason.kind === "history") {
      return [`${t("because")} ${reason.title || reason.item_id} (${number(reason.weight * 100)}%)`, reason.tag ? ` · ${t("alsoTag", reason.tag)}` : ""];
    }
    return [t(reason.kind === "interests" ? "byInterests" : reason.kind)];
  }

  async function refresh(fresh = false) {
    let made;
    try {
      made = await ask(`v1/recommendations/${encodeURIComponent(user)}${fresh ? "?fresh=true" : ""}`);
    } catch (error) {
      about.textContent = t("noAnswer", error.message);
      return;
    }
    const took = clicked && made.cause === "event" ? ` · ${t("took", number(performance.now() - clicked))}` : "";
    clicked = 0;
    about.textContent = `${user} · ${t(made.cause === "event" ? "causeEvent" : "causeRequest")} · ${t("by", short(made.release_id))}${took}`;
    const first = before.size === 0, now = new Map(made.items.map((item, rank) => [item.item_id, rank]));
    answer.replaceChildren(...made.items.map((item, rank) => {
      const was = before.get(item.item_id), isNew = !first && was === undefined;
      const change = isNew ? t("isNew") : was > rank ? `↑${was - rank}` : was < rank ? `↓${rank - was}` : "";
      return el("li", { class: !first && was !== rank ? "moved" : null, "data-item": item.item_id },
        el("span", { class: "rank" }, rank + 1),
        el("span", {}, el("b", {}, item.title || item.item_id), " ", el("span", { class: was < rank ? "change down" : "change" }, change)),
        el("span", {}, buttons(item, ["like", "dislike"].filter((name) => name in actions))),
        el("span", { class: "why" }, (item.reasons ?? []).map((reason, i) => [i ? "; " : "", ...why(reason)])));
    }));
    before = now;
  }

  const buttons = (item, names) => names.map((name) => [
    el("button", { type: "button", class: "chip", "data-action": name, "aria-label": `${name}: ${item.title || item.item_id}`, onclick: () => act(item, name) }, name), " "]);

  async function list() {
    const { items, total } = await ask(`v1/items?limit=12&q=${encodeURIComponent(search.value)}`);
    search.placeholder = t("ofItems", number(total));
    found.replaceChildren(...items.map((item) => el("li", { "data-item": item.item_id },
      el("span", {}, item.title || item.item_id, " ", item.tags.slice(0, 3).map((tag) => [el("span", { class: "tag plain" }, tag), " "])),
      el("span", {}, buttons(item, often)),
      rest.length ? el("select", { "aria-label": t("more"), onchange: (event) => { act(item, event.target.value); event.target.value = ""; }, class: "more" },
        el("option", { value: "" }, "…"), rest.map((name) => el("option", { value: name }, name))) : null)));
  }

  ended.addEventListener("abort", () => watching.abort());
  recently();
  await list();
  if (user) await choose(user);
}
