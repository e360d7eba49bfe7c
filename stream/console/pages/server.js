// Talking to the HTTP API. With a token configured, it is asked for once and kept for this tab only.
import { el } from "./dom.js";
import { t } from "./words.js";

const KEY = "driftline-token";

function headers(more = {}) {
  const token = sessionStorage.getItem(KEY);
  return token ? { ...more, authorization: `Bearer ${token}` } : more;
}

/** JSON of a route; throws an Error with the server's own sentence. */
export async function ask(path, body) {
  const answer = await fetch(path, body === undefined
    ? { headers: headers() }
    : { method: "POST", body: JSON.stringify(body), headers: headers({ "content-type": "application/json" }) });
  if (answer.status === 401) {
    await askForToken();
    return ask(path, body);
  }
  const said = await answer.json();
  if (!answer.ok) {
    const fault = said.faults && said.faults[0];
    throw Object.assign(new Error(fault ? fault.message : said.message), { status: answer.status, error: said.error });
  }
  return said;
}

/** Follows a stream of server-sent events until `signal` aborts; comes back after a lost connection. */
export async function follow(path, signal, take, lost = () => {}) {
  while (!signal.aborted) {
    try {
      const answer = await fetch(path, { headers: headers(), signal });
      if (answer.status === 401) { await askForToken(); continue; }
      if (!answer.ok) throw new Error(String(answer.status));
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const parts = (rest + value).split("\n\n");
        rest = parts.pop();
        for (const part of parts) {
          const name = /^event: (.*)$/m.exec(part), data = /^data: (.*)$/m.exec(part);
          if (name && data) take(name[1], JSON.parse(data[1]));
        }
      }
    } catch (error) {
      if (signal.aborted) return;
    }
    if (signal.aborted) return;
    lost();
    await new Promise((resume) => setTimeout(resume, 2000));
  }
}

let asking = null;
function askForToken() {
  asking ??= new Promise((resume) => {
    const dialog = document.getElementById("dialog");
    const field = el("input", { type: "password", autocomplete: "off", required: true });
    const form = el("form", { method: "dialog", onsubmit: () => {
      sessionStorage.setItem(KEY, field.value.trim());
      dialog.close();
      asking = null;
      resume();
    } },
      el("h2", {}, t("token")), el("p", { class: "soft" }, t("tokenWhy")),
      el("div", { class: "row" }, el("label", {}, t("token"), field), el("button", { class: "main" }, t("go"))));
    dialog.replaceChildren(form);
    dialog.showModal();
  });
  return asking;
}
