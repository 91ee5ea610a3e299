// The explorer of a finished sweep. Data come from explorer/data.js, which calls jaxsynth.open.
// Names and labels are hostile input: they reach the page as text only, never as markup.
"use strict";
const jaxsynth = (() => {
  const LINE = 18, GAP = 12, PADDING = 8;
  const state = { query: "", sort: "run", down: false, target: "", seed: "", metric: "", low: "",
    high: "", blur: true, pinned: null, rows: "", columns: "", x: "", y: "" };
  const revealed = new Set(), seen = new Set(), traces = new Map(), waiting = new Map();
  let D, app, live, metrics, order = [], view = {}, scrolls = {};
  const places = new Map(), runsOf = new Map();

  // --- small helpers -----------------------------------------------------------------------------

  function h(tag, attributes = {}, ...children) {
    const node = tag.startsWith("svg:")
      ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
      : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (name === "style") Object.assign(node.style, value);
      else if (value === true) node.setAttribute(name, "");
      else if (value !== false && value != null) node.setAttribute(name, value);
    }
    node.append(...children.flat().filter((child) => child != null && child !== ""));
    return node;
  }

  const text = (column, i) => {
    const found = D.columns[column];
    if (!found) return "";
    const value = Array.isArray(found) ? found[i] : found.values[found.index[i]];
    return value == null ? "" : String(value);
  };
  const isNumbers = (column) => Array.isArray(D.columns[column]);
  const shown = (i) => text("shown", i) || "last";
  const place = (i) => D.captions[i].split("\n")[0];
  const run = (i) => D.columns.run[i];
  const format = (v) => v == null ? "" : v !== 0 && Math.abs(v) < 0.0005 ? v.toExponential(0)
    : Number.isInteger(v) ? String(v) : Math.abs(v) >= 1000 ? v.toPrecision(6) : v.toPrecision(3);
  const distinct = (values) => [...new Set(values)];
  const imageFile = (i, look) =>
    D.looks.includes(look) ? `images/run${String(run(i)).padStart(5, "0")}_${look}.png` : "";
  const hiddenBy = (i, what) => state.blur && !revealed.has(i) && D.hide[what][i] > D.blur_above;
  const photoHidden = (n) => state.blur && !seen.has(n) && D.photos.p[n] > D.blur_above;
  const isHidden = (i) => hiddenBy(i, shown(i));
  const encode = (parts) => "#/" + parts.map(encodeURIComponent).join("/");
  const targetParts = (target) => {
    const [network, blob, ...label] = target.split(":");
    return [network, blob ?? "", label.join(":")];
  };

  // A sheet of pictures as the background of a node: picture n, `size` pixels wide.
  function paint(node, sheets, n, size) {
    const rest = n % sheets.per, x = rest % sheets.columns, y = Math.floor(rest / sheets.columns);
    const file = sheets.files[Math.floor(n / sheets.per)];
    Object.assign(node.style, { width: `${size}px`, height: `${size}px`,
      backgroundImage: `url("${file}")`, backgroundSize: `${sheets.columns * size}px auto`,
      backgroundPosition: `${-x * size}px ${-y * size}px` });
    return node;
  }

  // A thumbnail; while it is blurred, a click shows it instead of opening its run.
  function thumb(i, size) {
    const picture = paint(h("span", { class: "sprite", role: "img",
      "aria-label": `${place(i)}, run ${run(i)}` }), D.sprites, i, size);
    const box = h("span", { class: "thumb", style: { width: `${size}px`, height: `${size}px` } },
      picture);
    if (D.hide[shown(i)][i] > D.blur_above) {
      box.append(h("em", {}, "NSFW ", format(D.hide[shown(i)][i]), h("br"), "click to show"));
    }
    box.classList.toggle("blurred", isHidden(i));
    box.dataset.run = i;
    return box;
  }

  // The photographs beside run i, by group.
  function photographs(i) {
    if (!D.photos?.of[i]) return "";
    const size = window.innerWidth < 480 ? 82 : 104;
    const { of, captions, groups, p } = D.photos, box = h("div", { class: "photographs" });
    const first = of.slice(0, i).reduce((a, b) => a + b, 0);
    const own = Array.from({ length: of[i] }, (_, k) => first + k);
    const group = (n) => groups.values[groups.index[n]];
    for (const name of distinct(own.map(group))) {
      box.append(h("h3", {}, `Photographs ${name}`), h("div", { class: "cell" },
        own.filter((n) => group(n) === name).map((n) => {
          const lines = captions[n].split("\n");
          const picture = paint(h("span", { class: "sprite", role: "img",
            "aria-label": `photograph ${captions[n].replace("\n", ", ")}` }), D.photos, n, size);
          const over = h("span", { class: "thumb", style: { height: `${size}px` } }, picture);
          if (p[n] > D.blur_above) {
            over.append(h("em", {}, "NSFW ", format(p[n]), h("br"), "click to show"));
            over.dataset.photo = n;
            over.classList.toggle("blurred", photoHidden(n));
            over.addEventListener("click", () => { seen.add(n); refreshBlur(); });
          }
          return h("figure", { class: "photograph", style: { width: `${size}px` } }, over,
            h("figcaption", { title: captions[n] }, lines.map((line) => h("span", {}, line))));
        })));
    }
    return box;
  }

  const refreshBlur = () => {
    for (const box of document.querySelectorAll("[data-photo]")) {
      box.classList.toggle("blurred", photoHidden(+box.dataset.photo));
    }
    for (const box of document.querySelectorAll("[data-run]")) {
      const what = box.dataset.what || shown(+box.dataset.run);
      box.classList.toggle("blurred", hiddenBy(+box.dataset.run, what));
    }
    if (view.repaint) view.repaint();
  };

  function reveal(i) {
    revealed.add(i);
    refreshBlur();
    live.textContent = `run ${run(i)} is shown`;
  }

  const open = (i) => (event) => {
    if (!isHidden(i)) return;
    event.preventDefault();
    reveal(i);
  };

  // --- what there is to sort and to plot ---------------------------------------------------------

  function findMetrics() {
    const found = new Map();
    const targets = (n) => D.columns[`target_${n}`].values.filter((value) => value);
    const called = (base) => {
      const [, kind, n] = base.match(/^(p|activation)_(\d+)$/) || [];
      const [model, , label] = n && targets(n).length === 1 ? targetParts(targets(n)[0]) : [];
      if (kind === "p" && label && D.sensitive[model] === label) return ""; // a column of its own
      const one = label ?? `target ${n}`;
      if (kind) return kind === "p" ? `P(${one})` : `activation of ${one}`;
      return base in D.sensitive ? `P(${D.sensitive[base]})` : base;
    };
    const names = Object.keys(D.columns).filter(isNumbers);
    for (const name of names.filter((one) => one.endsWith("_last"))) {
      const base = name.slice(0, -5), best = D.columns[`${base}_best`];
      if (!best) continue;
      const values = D.columns[name].map((v, i) => shown(i) === "best" ? best[i] : v);
      const label = called(base);
      if (label && values.some((v) => v != null)) found.set(base, { label, values });
    }
    for (const name of ["run", "seed", ...names.filter((one) => one.startsWith("weight_"))]) {
      found.set(name, { label: name.replace("_", " "), values: D.columns[name] });
    }
    for (const name of names) {
      if (!found.has(name) && D.columns[name].some((v) => v != null)) {
        found.set(name, { label: name, values: D.columns[name] });
      }
    }
    return found;
  }

  function findPlaces() {
    for (let n = 1; D.columns[`target_${n}`]; n++) {
      const { values, index } = D.columns[`target_${n}`];
      for (const target of values.filter((one) => one && !runsOf.has(one))) {
        places.set(encode(targetParts(target)), target);
        runsOf.set(target, new Set());
      }
      index.forEach((k, i) => runsOf.get(values[k])?.add(i));
    }
    for (const [target, own] of runsOf) runsOf.set(target, [...own].sort((a, b) => a - b));
  }

  function filtered(target) {
    const words = state.query.toLowerCase().split(/\s+/).filter(Boolean);
    const limit = metrics.get(state.metric);
    const low = parseFloat(state.low), high = parseFloat(state.high);
    const chosen = [];
    for (const i of runsOf.get(target) || D.columns.run.keys()) {
      if (state.seed !== "" && text("seed", i) !== state.seed) continue;
      if (limit) {
        const v = limit.values[i];
        if (low === low && !(v >= low) || high === high && !(v <= high)) continue;
      }
      if (words.length) {
        const said = [D.captions[i], "run", run(i), "seed", text("seed", i), text("row", i),
          text("column", i), text("target_1", i), text("target_2", i), text("status", i)]
          .join(" ").toLowerCase(), parts = new Set(said.split(/[\s,\u00b7]+/));
        const found = (word) => /^[\d.]+$/.test(word) ? parts.has(word) : said.includes(word);
        if (!words.every(found)) continue;
      }
      chosen.push(i);
    }
    const by = metrics.get(state.sort) || metrics.get("run"), sign = state.down ? -1 : 1;
    return chosen.sort((a, b) => {
      const x = by.values[a], y = by.values[b];
      if (x == null || y == null) return (x == null) - (y == null) || a - b;
      return sign * (x - y) || a - b;
    });
  }

  // --- the gallery, of which only what is on the screen is in the page ----------------------------

  function gallery(items, label) {
    const box = h("div", { class: "cards", role: "list", "aria-label": label });
    const cards = new Map();
    let across = 1, side = 1, height = 1, pitch = 1;

    function measure() {
      const width = box.clientWidth || document.documentElement.clientWidth - 32;
      across = Math.max(2, Math.floor((width + GAP) / (150 + GAP)));
      pitch = (width + GAP) / across;
      side = Math.floor(pitch - GAP - 2 * PADDING);
      height = side + Math.max(4, ...items.slice(0, 500).map((one) => one.lines.length)) * LINE + 2 * PADDING + 6 + GAP;
      box.style.height = `${Math.ceil(items.length / across) * height}px`;
      for (const card of cards.values()) card.remove();
      cards.clear();
    }

    function draw() {
      const top = -box.getBoundingClientRect().top;
      const first = Math.max(0, Math.floor(top / height) - 2) * across;
      const last = Math.min(items.length,
        (Math.ceil((top + window.innerHeight) / height) + 2) * across);
      for (const [k, card] of cards) if (k < first || k >= last) { card.remove(); cards.delete(k); }
      let before = null;
      for (let k = first; k < last; k++) {
        let card = cards.get(k);
        if (!card) {
          card = make(k);
          cards.set(k, card);
          box.insertBefore(card, before ? before.nextSibling : box.firstChild);
        }
        before = card;
      }
    }

    function make(k) {
      const { i, lines, href } = items[k], [heading, ...more] = lines;
      const link = h("a", { href, class: "card", onclick: open(i), "data-place": k,
        style: { width: `${pitch - GAP}px`, height: `${height - GAP}px` } },
        thumb(i, side),
        h("span", { class: "lines" }, h("b", {}, heading), more.map(lineOf)));
      return h("div", { role: "listitem", "aria-setsize": items.length, "aria-posinset": k + 1,
        class: "place", style: { left: `${(k % across) * pitch}px`,
          top: `${Math.floor(k / across) * height}px` } }, link);
    }

    function focus(k) {
      if (k < 0 || k >= items.length) return;
      const top = box.getBoundingClientRect().top + Math.floor(k / across) * height;
      if (top < 130 || top + height > window.innerHeight) window.scrollBy(0, top - 150);
      draw();
      cards.get(k)?.firstChild.focus({ preventScroll: true });
    }

    let asked = 0;
    const later = () => { asked = asked || requestAnimationFrame(() => { asked = 0; draw(); }); };
    const again = () => { measure(); draw(); };
    window.addEventListener("scroll", later, { passive: true });
    window.addEventListener("resize", again);
    view.leave = () => {
      window.removeEventListener("scroll", later);
      window.removeEventListener("resize", again);
    };
    view.move = (step) => {
      const at = document.activeElement?.dataset?.place;
      focus(at === undefined ? Math.max(0, Math.floor(-box.getBoundingClientRect().top / height)) *
        across : +at + (typeof step === "number" ? step : step.rows * across));
    };
    view.start = again;
    return box;
  }

  // A line of a card: where it is too long, the number at its end stays.
  function lineOf(line) {
    const [, said, number] = line.match(/^(.+) (\S*\d\S*)$/) || [null, line, ""];
    return h("span", {}, h("span", {}, said), number && ` ${number}`);
  }

  function linesOf(i) {
    const by = metrics.get(state.sort), value = by && by.values[i];
    const [heading, ...scores] = D.captions[i].split("\n");
    const parts = heading.length > 16 ? heading.split(" · ") : [heading];
    const lines = [...parts, ...scores.slice(0, 3),
      `run ${run(i)}` + (D.captions[i].includes("best, step") ? "" : `, ${shown(i)} image`)];
    if (state.sort !== "run" && value != null) {
      lines.splice(-1, 0, `${by.label} ${format(value)}`);
    }
    if (text("status", i) !== "ok") lines[lines.length - 1] = text("status", i);
    return lines;
  }

  function select(label, value, options, change) {
    return h("label", { class: "field" }, h("span", {}, label),
      h("select", { onchange: (event) => change(event.target.value) },
        options.map(([key, said]) => h("option", { value: key, selected: key === value }, said))));
  }

  const metricOptions = () => [...metrics].map(([key, { label }]) => [key, label]);

  function input(label, key, options = {}) {
    return h("label", { class: "field" }, h("span", {}, label), h("input", { value: state[key],
      ...options, oninput: (event) => { state[key] = event.target.value; view.filter(); } }));
  }

  function galleryView(target) {
    const seeds = distinct(D.columns.seed), results = h("div"), count = h("p", { class: "count" });
    const targets = [...places].map(([href, name]) => [href, targetParts(name).join(" · ")]);
    const set = (key) => (value) => { state[key] = value; view.filter(); };
    const filters = h("details", { class: "filters", open: window.innerWidth > 736 },
      h("summary", {}, "filters"), h("div", { class: "bar" },
        places.size > 1 && places.size <= 2000 ? select("objective", target ? location.hash : "#/",
          [["#/", "all"], ...targets], (href) => { location.hash = href; }) : "",
        seeds.length > 1 && seeds.length <= 2000 ? select("seed", state.seed,
          [["", "all"], ...seeds.map((s) => [String(s), String(s)])], set("seed")) : "",
        select("only if", state.metric, [["", "(any value)"], ...metricOptions()], set("metric")),
        input("from", "low", { type: "number", step: "any", class: "short" }),
        input("to", "high", { type: "number", step: "any", class: "short" })));
    const bar = h("div", { class: "bar", role: "search" },
      input("search", "query", { type: "search", placeholder: "words ( / )", id: "search" }),
      select("sort by", state.sort, metricOptions(), set("sort")),
      h("label", { class: "field tick" }, h("input", { type: "checkbox", checked: state.down,
        id: "down", onchange: (event) => { state.down = event.target.checked; view.filter(); } }),
        h("span", {}, "highest first")), filters);
    view.filter = () => {
      if (view.leave) view.leave();
      order = filtered(target);
      count.textContent = `${order.length} of ${D.runs} runs`;
      const items = order.map((i) =>
        ({ i, href: `#/run/${run(i)}`, get lines() { return linesOf(i); } }));
      results.replaceChildren(gallery(items, "runs"));
      view.start();
    };
    const parts = target ? targetParts(target) : [];
    return [target ? h("h2", { tabindex: -1 }, parts.join(" · ")) : "",
      target ? objectiveFacts(target) : "", bar, count, results,
      target ? photographs(runsOf.get(target)[0]) : ""];
  }

  function objectiveFacts(target) {
    const rows = [];
    for (const [, { label, values }] of [...metrics].slice(0, 6)) {
      const own = runsOf.get(target).map((i) => values[i]).filter((v) => v != null);
      own.sort((a, b) => a - b);
      if (own.length && !["run", "seed"].includes(label)) {
        const called = label.replace("target 1", targetParts(target)[2] || "target 1");
        rows.push([called, own[0], own[own.length >> 1], own[own.length - 1]]);
      }
    }
    return h("div", { class: "scroll" }, table(["", "least", "median", "most"],
      rows.map(([name, ...values]) => [name, ...values.map(format)])));
  }

  function objectivesView() {
    const best = metrics.get("objective"), items = [];
    for (const [href, target] of places) {
      const own = runsOf.get(target), count = own.length;
      const chosen = own.reduce((a, b) => best && best.values[b] > best.values[a] ? b : a);
      const [network, blob, label] = targetParts(target);
      items.push({ i: chosen, href, lines: [label.startsWith("@") ? place(chosen) : label || blob, `${network} · ${blob}`,
        `${count} run${count > 1 ? "s" : ""}`, best ? `best objective ${format(best.values[chosen])}` : ""] });
    }
    view.filter = () => {};
    return [h("h2", { tabindex: -1 }, `${items.length} objectives`), gallery(items, "objectives")];
  }

  function table(heads, rows) {
    return h("table", {}, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", {}, rows.map(([head, ...cells]) => h("tr", {}, h("th", { scope: "row" }, head),
        cells.map((cell) => h("td", {}, cell))))));
  }

  // --- two settings against each other -------------------------------------------------------------

  function gridView() {
    const factors = Object.keys(D.columns).filter((name) => {
      if (!/^(row|column|seed|weight_\d+|target_\d+)$/.test(name)) return false;
      const several = distinct(isNumbers(name) ? D.columns[name] : D.columns[name].values).length;
      return several > 1 && several <= 200;
    });
    if (!factors.length) return [h("p", {}, "All runs have the same settings.")];
    const weights = factors.filter((name) => name.startsWith("weight_"));
    const usual = weights.length > 1 ? [weights[1], weights[0]]
      : factors.includes("row") && factors.includes("column") ? ["row", "column"] : factors;
    if (!factors.includes(state.rows)) state.rows = usual[0];
    if (!factors.includes(state.columns)) state.columns = usual[1] ?? usual[0];
    const options = factors.map((name) => [name, name.replace("_", " ")]);
    const again = (key) => (value) => { state[key] = value; show(); };
    const order_ = (name) => {
      const values = distinct(Array.from({ length: D.runs }, (_, i) => text(name, i)));
      return isNumbers(name) ? values.sort((a, b) => a - b) : values;
    };
    const cells = new Map();
    for (const i of order = filtered("")) {
      const key = JSON.stringify([text(state.rows, i), text(state.columns, i)]);
      cells.set(key, [...cells.get(key) || [], i]);
    }
    const cell = (row, column) => {
      const own = cells.get(JSON.stringify([row, column])) || [];
      return h("td", {}, h("div", { class: "cell" }, own.slice(0, 9).map((i) =>
        h("a", { href: `#/run/${run(i)}`, title: D.captions[i], onclick: open(i) },
          thumb(i, own.length > 1 ? 64 : 112))), own.length > 9 ? `+ ${own.length - 9}` : ""));
    };
    const columns = order_(state.columns);
    const near = new IntersectionObserver((seen) => seen.filter((one) => one.isIntersecting)
      .forEach(({ target }) => {
        near.unobserve(target);
        target.append(...columns.map((column) => cell(target.firstChild.textContent, column)));
      }), { rootMargin: "50%" });
    const line = (row) => {
      const made = h("tr", { style: { height: "120px" } }, h("th", { scope: "row" }, row));
      near.observe(made);
      return made;
    };
    return [h("div", { class: "bar" }, select("rows", state.rows, options, again("rows")),
      select("columns", state.columns, options, again("columns"))),
      h("div", { class: "scroll grid" }, h("table", {},
        h("thead", {}, h("tr", {}, h("th", {}, ""), columns.map((c) => h("th", { scope: "col" }, c)))),
        h("tbody", {}, order_(state.rows).map(line))))];
  }

  // --- any number against any other -----------------------------------------------------------------

  function scatterView() {
    const keys = [...metrics.keys()];
    if (!metrics.has(state.x)) state.x = keys.find((key) => key === "p_1") || keys[0];
    if (!metrics.has(state.y)) {
      state.y = keys.find((key) => key in D.sensitive && key !== state.x) || keys[1] || keys[0];
    }
    const set = (key) => (value) => { state[key] = value; view.repaint(); };
    const tick = (key, label) => h("label", { class: "field tick" }, h("input", { type: "checkbox",
      checked: state[key], onchange: (event) => { state[key] = event.target.checked; view.repaint(); } }),
      h("span", {}, label));
    const canvas = h("canvas", { class: "scatter", role: "img", tabindex: 0 });
    const tip = h("div", { class: "tip", hidden: true }), front = h("div");
    const sheets = D.sprites.files.map((file) => {
      const image = new Image();
      image.addEventListener("load", () => view.repaint && view.repaint());
      image.src = file;
      return image;
    });
    let points = [], size = 20;
    order = filtered("");

    view.repaint = () => {
      const width = canvas.clientWidth, height = canvas.clientHeight;
      if (!width) return;
      const ratio = window.devicePixelRatio || 1, pen = canvas.getContext("2d");
      canvas.width = width * ratio;
      canvas.height = height * ratio;
      pen.scale(ratio, ratio);
      const style = getComputedStyle(document.body), ink = style.color;
      const [xs, ys] = [metrics.get(state.x), metrics.get(state.y)];
      const own = order.filter((i) => xs.values[i] != null && ys.values[i] != null);
      size = Math.max(10, Math.min(48, Math.sqrt(width * height / Math.max(1, own.length)) * 0.6));
      const scale = (values, from, to) => {
        let low = Infinity, high = -Infinity;
        for (const i of own) { low = Math.min(low, values[i]); high = Math.max(high, values[i]); }
        if (!(high > low)) { low -= 0.5; high += 0.5; }
        return { low, high, at: (v) => from + (v - low) / (high - low) * (to - from) };
      };
      const half = size / 2, x = scale(xs.values, 64 + half, width - 12 - half);
      const y = scale(ys.values, height - 44 - half, 12 + half);
      pen.font = "12px system-ui, sans-serif";
      pen.fillStyle = pen.strokeStyle = ink;
      pen.globalAlpha = 0.7;
      for (let k = 0; k <= 4; k++) {
        const vx = x.low + k / 4 * (x.high - x.low), vy = y.low + k / 4 * (y.high - y.low);
        pen.textAlign = "center";
        pen.fillText(format(vx), x.at(vx), height - 26);
        pen.textAlign = "right";
        pen.fillText(format(vy), 56, y.at(vy) + 4);
      }
      pen.textAlign = "center";
      pen.fillText(xs.label, (64 + width) / 2, height - 8);
      pen.save();
      pen.translate(12, height / 2);
      pen.rotate(-Math.PI / 2);
      pen.fillText(ys.label, 0, 0);
      pen.restore();
      pen.globalAlpha = 1;
      points = own.map((i) => ({ i, x: x.at(xs.values[i]), y: y.at(ys.values[i]) }));
      const best = pareto(own, xs.values, ys.values);
      for (const point of points) {
        const left = point.x - half, top = point.y - half, s = D.sprites;
        const sheet = sheets[Math.floor(point.i / s.per)], rest = point.i % s.per;
        if (isHidden(point.i) || !sheet.complete || !sheet.naturalWidth) {
          pen.fillStyle = "#8888";
          pen.fillRect(left, top, size, size);
        } else {
          pen.drawImage(sheet, rest % s.columns * s.side, Math.floor(rest / s.columns) * s.side,
            s.side, s.side, left, top, size, size);
        }
      }
      pen.strokeStyle = "#d1602b";
      pen.lineWidth = 2;
      pen.beginPath();
      for (const i of best) {
        pen.lineTo(x.at(xs.values[i]), y.at(ys.values[i]));
      }
      pen.stroke();
      for (const i of best) {
        pen.strokeRect(x.at(xs.values[i]) - half, y.at(ys.values[i]) - half, size, size);
      }
      const said = `${own.length} runs: ${xs.label} across, ${ys.label} up; ${best.length} on the front`;
      canvas.setAttribute("aria-label", said);
      front.replaceChildren(h("h3", {}, `On the front: ${best.length} of ${own.length} runs`),
        h("div", { class: "cell" }, best.slice(0, 60).map((i) => h("a", { href: `#/run/${run(i)}`,
          title: D.captions[i], onclick: open(i) }, thumb(i, 72)))));
    };

    // Runs that no other run beats in both numbers, from left to right.
    function pareto(own, xs, ys) {
      const sx = state.lessX ? -1 : 1, sy = state.lessY ? -1 : 1;
      const sorted = [...own].sort((a, b) => sx * (xs[b] - xs[a]) || sy * (ys[b] - ys[a]));
      let most = -Infinity;
      const best = sorted.filter((i) => sy * ys[i] > most && (most = sy * ys[i], true));
      return best.sort((a, b) => xs[a] - xs[b]);
    }

    const near = (event) => {
      const box = canvas.getBoundingClientRect();
      const x = event.clientX - box.left, y = event.clientY - box.top;
      let found = null, least = size;
      for (const point of points) {
        const d = Math.max(Math.abs(point.x - x), Math.abs(point.y - y));
        if (d <= Math.min(least, size / 2 + 3)) { found = point; least = d; }
      }
      return found;
    };
    canvas.addEventListener("mousemove", (event) => {
      const point = near(event);
      tip.hidden = !point;
      canvas.style.cursor = point ? "pointer" : "";
      if (!point) return;
      tip.textContent = `${D.captions[point.i]}\nrun ${run(point.i)}`;
      const left = Math.min(point.x + size, canvas.clientWidth - 190);
      Object.assign(tip.style, { left: `${left}px`, top: `${point.y}px` });
    });
    canvas.addEventListener("click", (event) => {
      const point = near(event);
      if (point) location.hash = `#/run/${run(point.i)}`;
    });
    const resize = () => view.repaint && view.repaint();
    window.addEventListener("resize", resize);
    view.leave = () => window.removeEventListener("resize", resize);
    view.start = view.repaint;
    return [h("div", { class: "bar" }, select("across", state.x, metricOptions(), set("x")),
      select("up", state.y, metricOptions(), set("y")),
      tick("lessX", "less is better across"), tick("lessY", "less is better up")),
      h("div", { class: "stage" }, canvas, tip), front];
  }

  // --- one run ---------------------------------------------------------------------------------------

  function withTraces(i, then) {
    const part = Math.floor(i / D.traces.per);
    if (traces.has(part)) { then(traces.get(part)[i % D.traces.per]); return; }
    waiting.set(part, [...waiting.get(part) || [], [i, then]]);
    if (waiting.get(part).length === 1) {
      document.head.append(h("script", { src: `explorer/traces_${String(part).padStart(3, "0")}.js` }));
    }
  }

  function chart(curves, names, label) {
    const steps = D.traces.steps, W = 360, H = 150, L = 44, B = 22;
    const values = names.flatMap((name) => curves[name]).filter((v) => v != null);
    if (!values.length) return h("span");
    let low = Math.min(...values), high = Math.max(...values);
    if (label === "probability") { low = 0; high = 1; }
    if (high === low) { low -= 0.5; high += 0.5; }
    const last = steps[steps.length - 1] || 1;
    const x = (step) => L + step / last * (W - L - 8), y = (v) => H - B - (v - low) / (high - low) * (H - B - 8);
    const colours = ["#2f6db3", "#d1602b", "#3b8f5a", "#8a5bb0", "#b8912b", "#c04472"];
    const lines = names.map((name, n) => {
      let d = "", up = true;
      curves[name].forEach((v, k) => {
        if (v != null) d += `${up ? "M" : "L"}${x(steps[k]).toFixed(1)} ${y(v).toFixed(1)}`;
        up = v == null;
      });
      return h("svg:path", { d, fill: "none", stroke: colours[n % colours.length], "stroke-width": 2 });
    });
    const tick = (at, up, said, anchor) =>
      h("svg:text", { x: at, y: up, "text-anchor": anchor, "font-size": 11, fill: "currentColor" }, said);
    return h("figure", { class: "chart" }, h("svg:svg", { viewBox: `0 0 ${W} ${H}`, role: "img",
      "aria-label": `${label} over the steps` },
      h("svg:path", { d: `M${L} 8V${H - B}H${W - 8}`, fill: "none", stroke: "currentColor", opacity: 0.4 }),
      tick(L - 4, 14, format(high), "end"), tick(L - 4, H - B, format(low), "end"),
      tick(L, H - 6, "0", "middle"), tick(W - 8, H - 6, `step ${last}`, "end"), lines,
      h("svg:path", { class: "now", stroke: "currentColor", "stroke-dasharray": "3 3", d: "", fill: "none" })),
      h("figcaption", {}, names.map((name, n) => h("span", { class: "key" },
        h("i", { style: { background: colours[n % colours.length] } }), name))));
  }

  function code(title, said) {
    if (!said) return "";
    const button = h("button", { type: "button", class: "copy", onclick: () => {
      navigator.clipboard?.writeText(said).then(() => { button.textContent = "copied"; }, () => {});
    } }, "copy");
    return h("div", {}, h("h3", {}, title), h("pre", { tabindex: 0 }, h("code", {},
      said.split(/(\s+)/).map((word) => word.trim() ? h("span", {}, word) : word))), button);
  }

  function panel(i, whole) {
    const img = h("img", { alt: "", width: 448, height: 448 });
    const sprite = h("span", { class: "sprite", role: "img" });
    const warn = h("em", {}, h("span"), h("span", {}, "click to show"));
    const box = h("div", { class: "large", onclick: () => reveal(i), "data-run": i }, img, sprite, warn);
    const film = D.film, slider = h("input", { type: "range", min: 0, step: 1, "aria-label": "step" });
    const said = h("output"), charts = h("div", { class: "charts" });
    const save = h("a", { class: "button", download: true }, "download PNG");
    const films = `film_run${String(run(i)).padStart(5, "0")}.webp`;
    const saveFilm = D.films.includes(films)
      ? h("a", { class: "button", href: films, download: true }, "download film") : "";
    const buttons = h("div", { class: "looks", role: "group", "aria-label": "image" });
    let timer = 0;

    function show(what, frame) {
      const isFilm = what === "film", file = isFilm ? "" : imageFile(i, what);
      const name = isFilm ? film.frames[frame] : `${what} image`;
      box.dataset.what = isFilm ? "film" : what;
      img.hidden = !file;
      sprite.hidden = !!file;
      if (file) { img.src = file; img.alt = `${place(i)}, run ${run(i)}, ${what} image`; }
      else {
        const sheets = isFilm ? film : D.sprites, n = isFilm ? i * film.frames.length + frame : i;
        const rest = n % sheets.per, across = sheets.columns;
        const rows = Math.ceil(Math.min(sheets.per, total(sheets) - n + rest) / across);
        sprite.style.backgroundImage = `url("${sheets.files[Math.floor(n / sheets.per)]}")`;
        const percent = (k, count) => count > 1 ? `${k / (count - 1) * 100}%` : "0";
        sprite.style.backgroundSize = `${across * 100}% ${rows * 100}%`;
        sprite.style.backgroundPosition =
          `${percent(rest % across, across)} ${percent(Math.floor(rest / across), rows)}`;
        sprite.setAttribute("aria-label", `${place(i)}, run ${run(i)}, ${name}`);
      }
      const p = D.hide[box.dataset.what][i];
      warn.firstChild.textContent = p == null ? "" : `NSFW ${format(p)}`;
      box.classList.toggle("blurred", hiddenBy(i, box.dataset.what));
      save.hidden = !file;
      if (file) save.setAttribute("href", file);
      said.textContent = name;
      slider.setAttribute("aria-valuetext", name);
      for (const button of buttons.children) button.setAttribute("aria-pressed", button.value === what);
      mark(isFilm ? stepOf(frame) : null);
    }

    const total = (sheets) => sheets === film ? D.runs * film.frames.length : D.runs;
    const stepOf = (frame) => frame === 0 ? 0 : frame === film.frames.length - 1
      ? D.traces.steps[D.traces.steps.length - 1] : parseInt(film.frames[frame].slice(5), 10);
    const mark = (step) => {
      const last = D.traces.steps[D.traces.steps.length - 1] || 1;
      for (const line of charts.querySelectorAll(".now")) {
        line.setAttribute("d", step == null ? "" : `M${44 + step / last * 308} 8V128`);
      }
    };
    const stop = () => { clearInterval(timer); timer = 0; play.textContent = "play"; };
    const play = h("button", { type: "button", onclick: () => {
      if (timer) { stop(); return; }
      play.textContent = "stop";
      timer = setInterval(() => {
        if (!play.isConnected) { stop(); return; }
        slider.value = (+slider.value + 1) % film.frames.length;
        show("film", +slider.value);
      }, 400);
    } }, "play");
    const looks = D.looks.length ? D.looks : [shown(i)];
    for (const look of looks) {
      buttons.append(h("button", { type: "button", value: look, onclick: () => { stop(); show(look); } }, look));
    }
    if (film) {
      slider.max = film.frames.length - 1;
      slider.value = slider.max;
      slider.addEventListener("input", () => { stop(); show("film", +slider.value); });
    }
    show(looks.includes(shown(i)) ? shown(i) : looks[0]);
    const columns = Object.keys(D.columns).filter((name) => text(name, i) !== "");
    const numbers = columns.map((name) => [name, isNumbers(name) ? format(D.columns[name][i]) : text(name, i)]);
    const replace = (lines) => lines.replaceAll("\0run", run(i)).replaceAll("\0seed", text("seed", i))
      .replaceAll("\0objective", JSON.stringify(D.objectives.values[D.objectives.index[i]]));
    withTraces(i, (curves) => {
      const names = Object.keys(curves).filter((name) => name !== "objective");
      if (curves.objective?.length) charts.append(chart(curves, ["objective"], "objective"));
      if (names.length) charts.append(chart(curves, names, "probability"));
    });
    const { command, python, python_continue } = D.repeat, again = D.repeat["continue"];
    return h("section", { class: "panel" },
      h("div", { class: "picture-side" }, box, h("div", { class: "controls" }, buttons, save),
        film ? h("div", { class: "controls film" }, play, slider, saveFilm) : "", said,
        whole ? photographs(i) : ""),
      h("div", { class: "number-side" }, h("p", { class: "caption" }, D.captions[i]), charts,
        whole ? h("details", { open: window.innerWidth > 700 }, h("summary", {}, "numbers"),
          h("div", { class: "scroll" }, table(["column", "value"], numbers))) : "",
        whole ? h("details", {}, h("summary", {}, "repeat or continue this run"),
          code("The command of all runs", command), code("Continue this run", replace(again)),
          code("Repeat this run in Python", replace(python)),
          code("Continue it in Python", replace(python_continue))) : ""));
  }

  function runView(number) {
    const i = D.columns.run.indexOf(number);
    if (i < 0) return [h("h2", { tabindex: -1 }, `There is no run ${number}`)];
    if (!order.includes(i)) order = filtered("");
    const at = order.indexOf(i), go = (step) => {
      const next = order[at + step];
      if (next !== undefined) location.hash = `#/run/${run(next)}`;
    };
    view.move = (step) => { if (typeof step === "number") go(step); };
    view.image = i;
    const link = (step, said) => order[at + step] === undefined ? h("span", { class: "button off" }, said)
      : h("a", { class: "button", href: `#/run/${run(order[at + step])}` }, said);
    const pin = h("button", { type: "button", onclick: () => { state.pinned = i; show(); } },
      state.pinned === i ? "kept: open another run" : "compare with ...");
    const versus = state.pinned != null && state.pinned !== i
      ? h("a", { class: "button", href: `#/compare/${run(state.pinned)}/${run(i)}` },
        `beside run ${run(state.pinned)}`) : "";
    const goals = [...places].filter(([, target]) => runsOf.get(target).includes(i));
    return [h("div", { class: "bar" }, h("a", { class: "button", href: view.back }, "all runs"),
      link(-1, "previous (k)"), link(1, "next (j)"), pin, versus),
      h("h2", { tabindex: -1 }, `Run ${number} · ${place(i)}`),
      h("p", { class: "goals" }, goals.map(([href, target]) =>
        h("a", { href }, targetParts(target).join(" · ")))),
      panel(i, true), alike(i)];
  }

  function alike(i) {
    const target = text("target_1", i), seed = text("seed", i), box = h("div");
    for (const [said, is] of [["The same objective", (k) => target && text("target_1", k) === target],
      ["The same seed", (k) => text("seed", k) === seed]]) {
      const own = [];
      for (let k = 0; k < D.runs && own.length < 12; k++) if (k !== i && is(k)) own.push(k);
      if (own.length) {
        box.append(h("h3", {}, said), h("div", { class: "cell" }, own.map((k) =>
          h("a", { href: `#/run/${run(k)}`, title: D.captions[k], onclick: open(k) }, thumb(k, 72)))));
      }
    }
    return box;
  }

  function compareView(one, other) {
    const pair = [one, other].map((number) => D.columns.run.indexOf(number));
    if (pair.includes(-1)) return [h("h2", { tabindex: -1 }, "There are no such runs")];
    const differing = Object.keys(D.columns).filter((name) => text(name, pair[0]) !== text(name, pair[1]));
    const cell = (name, i) => isNumbers(name) ? format(D.columns[name][i]) : text(name, i);
    return [h("div", { class: "bar" }, h("a", { class: "button", href: view.back }, "all runs")),
      h("h2", { tabindex: -1 }, `Run ${one} beside run ${other}`),
      h("div", { class: "beside" }, pair.map((i) => h("div", {}, h("h3", {},
        h("a", { href: `#/run/${run(i)}` }, `Run ${run(i)} · ${place(i)}`)), panel(i, false)))),
      h("h3", {}, "What differs"), h("div", { class: "scroll" }, table(["", `run ${one}`, `run ${other}`],
        differing.map((name) => [name, cell(name, pair[0]), cell(name, pair[1])])))];
  }

  // --- the page ----------------------------------------------------------------------------------------

  const TABS = [["#/", "Gallery"], ["#/objectives", "Objectives"], ["#/grid", "Grid"],
    ["#/scatter", "Scatter"], ["#/summary", "Summary"]];

  function show() {
    if (view.leave) view.leave();
    const hash = location.hash || "#/", parts = hash.slice(2).split("/").map(decode);
    const back = view.isList ? view.hash : view.back || "#/";
    if (view.isList) scrolls[view.hash] = window.scrollY;
    view = { hash, back, filter: () => {} };
    const target = places.get(hash) ?? places.get(encode(parts));
    const views = { grid: 1, scatter: 1 };
    let found;
    if (target !== undefined) { view.isList = true; found = galleryView(target); }
    else if (parts[0] === "run") found = runView(+parts[1]);
    else if (parts[0] === "compare") found = compareView(+parts[1], +parts[2]);
    else if (parts[0] === "objectives") found = objectivesView();
    else if (parts[0] === "grid") { view.isList = true; found = gridView(); }
    else if (parts[0] === "scatter") { view.isList = true; found = scatterView(); }
    else if (parts[0] === "summary") found = [];
    else { view.isList = true; found = galleryView(""); }
    document.getElementById("static").classList.toggle("open", parts[0] === "summary");
    document.body.dataset.view = view.isList && !(parts[0] in views) ? "list" : parts[0];
    app.replaceChildren(...found.filter((node) => node !== ""));
    for (const tab of document.querySelectorAll("nav a")) {
      if (tab.getAttribute("href") === hash) tab.setAttribute("aria-current", "page");
      else tab.removeAttribute("aria-current");
    }
    if (parts[0] !== "summary" && view.filter && app.querySelector("[role=search]")) view.filter();
    else if (view.start) view.start();
    const heading = app.querySelector("h2");
    document.title = heading ? `${heading.textContent} · ${D.title}` : D.title;
    window.scrollTo(0, view.isList ? scrolls[hash] || 0 : 0);
    if (view.start && view.isList && scrolls[hash]) view.start();
    if (heading && started) heading.focus({ preventScroll: true });
  }

  const decode = (part) => { try { return decodeURIComponent(part); } catch { return part; } };
  let started = false;

  function setBlur(on) {
    state.blur = on;
    if (on) { revealed.clear(); seen.clear(); }
    document.getElementById("blur").checked = on;
    refreshBlur();
    live.textContent = on ? "suggestive images are blurred" : "all images are shown";
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "Escape") {
      if (typing) event.target.blur();
      else if (!view.isList) location.hash = view.back;
      return;
    }
    if (typing) return;
    const moves = { j: 1, ArrowRight: 1, k: -1, ArrowLeft: -1, ArrowDown: { rows: 1 }, ArrowUp: { rows: -1 } };
    const inGallery = document.activeElement?.dataset?.place !== undefined;
    if (event.key === "/") {
      event.preventDefault();
      if (!document.getElementById("search")) location.hash = "#/";
      setTimeout(() => document.getElementById("search")?.focus());
    } else if (event.key === "b") setBlur(!state.blur);
    else if (event.key === "Enter" && view.image !== undefined && document.activeElement === document.body) {
      reveal(view.image);
    } else if (event.key in moves && view.move) {
      if (typeof moves[event.key] === "object" && !inGallery) return; // the page scrolls
      event.preventDefault();
      view.move(moves[event.key]);
    }
  }

  window.addEventListener("load", () => {
    if (D) return;
    document.getElementById("app").append("The folder explorer/ is missing beside this page.");
    document.getElementById("static").classList.add("open");
  });

  return {
    traces(part, found) {
      traces.set(part, found);
      for (const [i, then] of waiting.get(part) || []) then(found[i % D.traces.per]);
      waiting.delete(part);
    },
    open(data) {
      D = data;
      app = document.getElementById("app");
      live = document.getElementById("live");
      metrics = findMetrics();
      findPlaces();
      const tabs = TABS.filter(([href]) => href !== "#/objectives" || places.size > 1);
      document.getElementById("top").append(h("nav", { "aria-label": "views" },
        tabs.map(([href, said]) => h("a", { href }, said))),
        h("label", { class: "field tick" }, h("input", { type: "checkbox", id: "blur", checked: true,
          onchange: (event) => setBlur(event.target.checked) }),
          h("span", {}, `blur above NSFW ${D.blur_above} (b)`)));
      window.addEventListener("hashchange", show);
      document.addEventListener("keydown", onKey);
      show();
      started = true;
      document.documentElement.dataset.ready = "yes";
    },
  };
})();
