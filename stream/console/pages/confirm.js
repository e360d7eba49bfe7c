// A question that changes something: answered with its own words, or not at all.
import { el } from "./dom.js";
import { t } from "./words.js";

export function confirm(question, verb) {
  const dialog = document.getElementById("dialog");
  return new Promise((answer) => {
    dialog.replaceChildren(el("form", { method: "dialog" },
      el("p", {}, question),
      el("p", { class: "row" }, el("button", { value: "no" }, t("cancel")), el("button", { value: "yes", class: "danger", id: "confirm" }, verb))));
    dialog.returnValue = "no";
    dialog.addEventListener("close", () => answer(dialog.returnValue === "yes"), { once: true });
    dialog.showModal();
  });
}
