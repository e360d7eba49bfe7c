// Live: tiles and charts of the last five minutes, fed by one stream.
import { chart } from "./chart.js";
import { el, number, rate, say, short } from "./dom.js";
import { follow } from "./server.js";
import { t } from "./words.js";

const KEPT = 300;

export function livePage(main, path, ended) {
  const values = {};
  const tile = (key) => el("div", { class: "card tile" }, (values[key] = el("b", {}, "–")), el("small", {}, t(key)));
  const flow = chart(t("flow")), lag = chart(t("lagTitle")), latency = chart(t("latencyTitle"), 0), quality = chart(t("qualityTitle"), 3, t("qualityNote"));
  main.append(
    el("div", { class: "head" }, el("h1", {}, t("live")), el("p", { class: "soft" }, t("liveAbout"))),
    el("div", { class: "tiles" }, ["eventsIn", "lag", "latency", "serving", "liveNdcg"].map(tile)),
    el("div", { class: "pair" }, flow.card, latency.card, quality.card, lag.card),
  );
  values.serving.classList.add("text");
  let moments = [], serving = null;

  function showServing() {
    serving = moments.at(-1).serving;
    values.serving.textContent = short(serving);
    values.serving.title = serving ?? "";
  }

  function draw() {
    const now = moments.at(-1).figures, times = moments.map((moment) => moment.figures.at);
    const line = (name, key) => ({ name: t(name), values: moments.map((moment) => moment.figures[key]) });
    values.eventsIn.textContent = rate(now.produced_per_s);
    values.lag.textContent = number(now.lag);
    values.latency.textContent = number(now.p50_ms);
    flow.draw(times, [line("produced", "produced_per_s"), line("applied", "applied_per_s"), line("recommended", "recommended_per_s")]);
    lag.draw(times, [line("lag", "lag")]);
    latency.draw(times, [line("median", "p50_ms"), line("p99", "p99_ms")]);
    const names = [...new Set(moments.flatMap((moment) => moment.quality.map((each) => each.release_id)))].sort();
    quality.draw(times, names.map((name) => ({
      name: short(name),
      values: moments.map((moment) => moment.quality.find((each) => each.release_id === name)?.ndcg10 ?? null),
    })));
    showServing();
    showQuality();
  }

  function showQuality() {
    const live = moments.at(-1)?.quality.find((each) => each.release_id === serving);
    values.liveNdcg.textContent = live ? number(live.ndcg10, 3) : "–";
  }

  let fresh = true;
  follow("v1/console/live", ended, (name, batch) => {
    moments = (fresh ? [] : moments).concat(batch).slice(-KEPT);
    fresh = false;
    if (moments.length) draw();
  }, () => { fresh = true; say(t("lost"), true); });
}
