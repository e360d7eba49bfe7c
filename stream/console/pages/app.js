// Which page is shown, in which language and theme. A page is a function (main, path) => stop.
import { el, say } from "./dom.js";
import { language, setLanguage, t } from "./words.js";
import { livePage } from "./live.js";
import { tryPage } from "./try.js";
import { userPage } from "./user.js";
import { releasesPage } from "./releases.js";
import { dataPage } from "./data.js";

const PAGES = { live: livePage, try: tryPage, user: userPage, releases: releasesPage, data: dataPage };
const main = document.getElementById("main");
let stop = () => {};

function show() {
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  const page = PAGES[name] ? name : "live";
  stop();
  main.replaceChildren();
  document.title = `${t(page)} · driftline`;
  for (const node of document.querySelectorAll("[data-say]")) node.textContent = t(node.dataset.say);
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", t(node.dataset.label));
  document.getElementById("nav").replaceChildren(...Object.keys(PAGES).map((each) =>
    el("a", { href: `#/${each}`, "aria-current": each === page ? "page" : null }, t(each))));
  document.getElementById("language").textContent = t("language");
  document.getElementById("theme").textContent = t(theme() === "dark" ? "light" : "dark");
  const ended = new AbortController();
  stop = () => ended.abort();
  PAGES[page](main, decodeURIComponent(rest.join("/")), ended.signal);
}

const theme = () => document.documentElement.dataset.theme;
function setTheme(name) {
  document.documentElement.dataset.theme = name;
}

document.getElementById("theme").addEventListener("click", () => {
  setTheme(theme() === "dark" ? "light" : "dark");
  localStorage.setItem("driftline-theme", theme());
  show();
});
document.getElementById("language").addEventListener("click", () => {
  setLanguage(language() === "en" ? "zh" : "en");
  localStorage.setItem("driftline-language", language());
  show();
});
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
addEventListener("hashchange", show);
addEventListener("unhandledrejection", (event) => {
  say(event.reason.message ?? String(event.reason), true);
  if (event.reason.status) event.preventDefault(); // the server's refusal, told; not a defect of these scripts
});

setTheme(localStorage.getItem("driftline-theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
setLanguage(localStorage.getItem("driftline-language") ?? (navigator.language.startsWith("zh") ? "zh" : "en"));
show();
