// Small things every page uses: elements from data (never from HTML text), numbers and times.

/** An element; `on…` properties are listeners, others attributes, children text or elements. */
export function el(name, properties = {}, ...children) {
  const made = document.createElement(name);
  set(made, properties);
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** The same for SVG. */
export function svg(name, properties = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  set(made, properties);
  made.append(...children.flat(Infinity));
  return made;
}

function set(made, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "value") made.value = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
}

export function number(value, digits = 0) {
  if (value === null || value === undefined) return "–";
  return value.toLocaleString(document.documentElement.lang, { maximumFractionDigits: digits, minimumFractionDigits: digits });
}

/** Events per second, with a digit while it matters. */
export const rate = (value) => number(value, value < 10 ? 1 : 0);

export function moment(seconds) {
  if (!seconds) return "–";
  return new Date(seconds * 1000).toLocaleString(document.documentElement.lang, { dateStyle: "medium", timeStyle: "medium" });
}

/** The readable part of a release's name: r00002 of r00002-0123456789abcdef. */
export const short = (release) => (release ? release.split("-")[0] : "–");

let hide = 0;
export function say(text, bad = false) {
  const status = document.getElementById("status");
  status.textContent = text;
  status.classList.toggle("bad", bad);
  clearTimeout(hide);
  hide = setTimeout(() => (status.textContent = ""), bad ? 9000 : 4000);
}
