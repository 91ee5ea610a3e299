// The page of a sweep under way. explorer/live.js calls jaxsynth.live with what is new; names in it
// reach the page as text only.
"use strict";
const jaxsynth = (() => {
  const get = (id) => document.getElementById(id), shown = new Map();
  const format = (v) => v == null ? "" : v !== 0 && Math.abs(v) < 0.0005 ? v.toExponential(1)
    : Math.abs(v) >= 1000 ? v.toPrecision(6) : v.toPrecision(4);
  const put = (id, said) => { if (get(id).textContent !== said) get(id).textContent = said; };
  let news = 0, state = "running";

  function time(seconds) {
    if (seconds == null) return "";
    if (seconds < 90) return `${Math.ceil(seconds)} s`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
    return `${(seconds / 3600).toFixed(1)} h`;
  }

  function node(tag, attributes, ...children) {
    const made = tag === "path" || tag === "svg"
      ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  // A card of a run; a run that is known already keeps its card, so a click on it is not undone.
  function card(kind, run, above) {
    let made = shown.get(kind + run.run);
    if (!made) {
      const check = node("input", { type: "checkbox" });
      const img = node("img", { alt: "" }), warn = node("em", {}), caption = node("figcaption", {});
      const box = node("label", { class: "picture" }, check, img, warn);
      made = { figure: node("figure", { class: "run" }, box, caption), box, check, img, warn, caption };
      shown.set(kind + run.run, made);
    }
    if (made.img.src !== run.image) made.img.src = run.image;
    made.img.alt = `${run.lines[0]}, run ${run.run}`;
    made.check.hidden = !(run.p > above);
    made.check.setAttribute("aria-label", `show ${made.img.alt}`);
    made.box.classList.toggle("blurred", run.p > above);
    made.warn.textContent = run.p > above ? `NSFW ${run.p.toFixed(2)}\nclick to show` : "";
    const lines = run.lines.map((line, n) => node(n ? "span" : "b", {}, line));
    made.caption.replaceChildren(...lines);
    return made.figure;
  }

  function gallery(id, kind, runs, above) {
    get(id + "-part").hidden = !runs.length;
    const cards = runs.map((run) => card(kind, run, above)), box = get(id);
    if (cards.length !== box.children.length || cards.some((one, n) => box.children[n] !== one)) {
      box.replaceChildren(...cards);
    }
  }

  function chart(runs) {
    const curves = runs.map((run) => run.curve).filter((curve) => curve.length > 1);
    const all = curves.flat().filter((v) => v != null);
    get("chart").hidden = !all.length;
    if (!all.length) return;
    const low = Math.min(...all), high = Math.max(...all) > low ? Math.max(...all) : low + 1;
    const draw = (curve) => {
      let d = "", up = true;
      curve.forEach((v, k) => {
        if (v != null) {
          const x = k / (curve.length - 1) * 600, y = 148 - (v - low) / (high - low) * 140;
          d += `${up ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`;
        }
        up = v == null;
      });
      return d;
    };
    const middle = (values) => values.length ? values.sort((a, b) => a - b)[values.length >> 1] : null;
    const length = Math.max(...curves.map((curve) => curve.length));
    const median = [...Array(length).keys()].map((k) =>
      middle(curves.map((curve) => curve[k]).filter((v) => v != null)));
    const line = (curve, kind) => node("path", { d: draw(curve), class: kind });
    get("lines").replaceChildren(...curves.map((curve) => line(curve, "one")), line(median, "median"));
    put("high", format(high));
    put("low", format(low));
  }

  function say(data) {
    const old = Date.now() / 1000 - data.time, part = data.done / data.total;
    const computed = data.finished_runs >= data.runs;
    put("state", data.state === "finished" ? "Finished" : data.state === "stopped" ? "Stopped"
      : computed ? "Computed; the pages are being written" : "Computing");
    put("runs", `${data.finished_runs} of ${data.runs} runs are finished`);
    put("step", data.now.length ? `step ${data.step} of ${data.steps}` : "");
    put("left", data.state !== "running" || computed ? "" : data.left == null
      ? "compiling, or the first step" : `${time(data.left)} left`);
    put("best", data.best == null ? "" : `best objective ${format(data.best)}`);
    put("median", data.median == null ? "" : `median of these ${format(data.median)}`);
    put("stale", data.state === "running" && old > (computed ? 900 : 120)
      ? `No news for ${time(old)}: has the process stopped?` : "");
    get("bar").value = part;
    document.title = `${Math.floor(100 * part)} % · ${document.documentElement.dataset.title}`;
  }

  // The data are read again and again. When they are gone, the explorer has taken this page's place.
  function ask() {
    const script = node("script", { src: `explorer/live.js?${Date.now()}` });
    script.addEventListener("load", () => { script.remove(); setTimeout(ask, 1000); });
    script.addEventListener("error", () => setTimeout(() => location.reload(), 1000));
    document.head.append(script);
  }

  return {
    ask,
    live(data) {
      say(data);
      if (data.time === news && data.state === state) return;
      [news, state] = [data.time, data.state];
      const begun = data.now.some((run) => run.curve.length > 1);
      chart(begun ? data.now : data.finished.slice(0, 16));
      gallery("now", "now", data.now, data.blur_above);
      gallery("finished", "run", data.finished, data.blur_above);
      document.documentElement.dataset.ready = "yes";
    },
  };
})();
jaxsynth.ask();
