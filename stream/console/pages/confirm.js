// A question that changes something: answered with its own words, or not at all.
import { el } from "./dom.js";
import { t } from "./words.js";

/** True once confirmed; with a `field` (its label), the text given, which may be empty; else false. */
export function confirm(question, verb, field = "") {
  const dialog = document.getElementById("dialog");
  const text = field ? el("input", { maxlength: 500, autocomplete: "off", id: "reason" }) : null;
  return new Promise((answer) => {
    dialog.replaceChildren(el("form", { method: "dialog" },
      el("p", {}, question),
      text && el("label", {}, field, text),
      el("p", { class: "row" }, el("button", { type: "button", onclick: () => dialog.close("no") }, t("cancel")), el("button", { value: "yes", class: "danger", id: "confirm" }, verb))));
    dialog.returnValue = "no";
    dialog.addEventListener("close", () => answer(dialog.returnValue === "yes" && (text ? { text: text.value.trim() } : true)), { once: true });
    dialog.showModal();
  });
}
