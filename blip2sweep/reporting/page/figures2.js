// Figures 4 to 6 and the 3-D view.
const MOST_PLACES = 60; // rows of the method comparison

// Two parts are the axes, a panel for each width of the others: REPORT.map says which, by method.
FIGURES.map = function () {
  const all = rows(REPORT.figures.map), settings = Object.keys(REPORT.map);
  chosenOf("map", settings);
  tools("map", "Method", settings.map((s) => [s, s]));
  const { x: across, y: up, panels: every, single } = REPORT.map[state.map];
  const shown = all.filter((r) => r.setting === state.map || r.setting === "none");
  const widths = (part) => distinct(shown.map((r) => r[part])).sort(byNumber);
  const x = widths(across), y = widths(up), name = (w) => (w === 16 ? "–" : String(w));
  const { shown: drawn, more, axis, left, first, last } = panels("map", every, every.map((p) => p.title));
  const top = Math.max(...shown.map((r) => r.drop || 0)), traces = [];
  drawn.forEach((panel, i) => {
    const own = shown.filter((r) => Object.entries(panel.at).every(([part, w]) => r[part] === w));
    const grid = (f) => y.map((v) => x.map((u) => { const hit = own.find((r) => r[up] === v && r[across] === u); return hit ? f(hit) : null; }));
    const at = { xaxis: "x" + axis(i), yaxis: "y" + axis(i), x: x.map((_, k) => k), y: y.map((_, k) => k) };
    traces.push({
      type: "heatmap", z: grid((r) => r.drop), zmin: 0, zmax: top, ...at, showscale: i === 0, colorscale: "Cividis", reversescale: true, xgap: 2, ygap: 2,
      colorbar: { title: { text: REPORT.words.worse }, thickness: 12, lenmode: "pixels", len: 230, y: 1, yanchor: "top" }, text: grid((r) => number(r.drop, 2)).map((line) => line.map((t) => t || "")), texttemplate: "%{text}", textfont: { size: 11 },
      customdata: grid((r) => `${plain(r.recipe)}<br>${REPORT.words.worse} ${number(r.drop)} [${number(r.low)}, ${number(r.high)}]`), hovertemplate: "%{customdata}<extra></extra>",
    });
    const sizes = grid((r) => r.size);
    if (sizes.flat().filter((v) => v !== null).length > 5) traces.push({ type: "contour", z: sizes, ...at, contours: { coloring: "none", showlabels: true, labelfont: { size: 10, color: css("--fg") } }, line: { color: css("--fg"), width: 1, dash: "dot" }, showscale: false, hoverinfo: "skip", showlegend: false, connectgaps: false, ncontours: 5 });
    const calm = own.filter((r) => r.low !== null && r.low <= 0 && r.high >= 0);
    // Strokes in the corners: they leave the number free.
    const strokes = calm.flatMap((r) => [[-1, -1], [-1, 1], [1, -1], [1, 1]].map(([a, b]) => [x.indexOf(r[across]) + 0.32 * a, y.indexOf(r[up]) + 0.3 * b]));
    traces.push({ x: strokes.map((s) => s[0]), y: strokes.map((s) => s[1]), xaxis: at.xaxis, yaxis: at.yaxis, mode: "markers", marker: { symbol: "line-ne-open", size: 9, color: "#777", line: { width: 1.5, color: "#777" } }, name: "interval covers 0", showlegend: i === 0, legendgroup: "calm", hoverinfo: "skip" });
    Object.assign(more["xaxis" + axis(i)], { title: last(i) ? { text: plain(`${across} bits`) } : undefined, tickvals: x.map((_, k) => k), ticktext: x.map(name), range: [-0.5, x.length - 0.5], showgrid: false, zeroline: false });
    Object.assign(more["yaxis" + axis(i)], { title: first(i) ? { text: plain(`${up} bits`) } : undefined, tickvals: y.map((_, k) => k), ticktext: y.map(name), range: [-0.5, y.length - 0.5], showgrid: false, zeroline: false });
  });
  note("map", left, single ? `Widths of the other parts with a single cell, in the data only: ${single}.` : "");
  return plot("map", traces, { ...more });
};

// The way down from full precision: one line for the ladder, or one a part where parts were run alone.
FIGURES.prices = function () {
  const all = rows(REPORT.figures.prices).filter((r) => r.kind !== "here" && r.key !== null), settings = distinct(all.map((r) => r.setting));
  const place = document.getElementById("plot-prices"), base = REPORT.base;
  place.hidden = !all.length;
  if (!all.length) return null;
  chosenOf("prices", settings);
  tools("prices", "Method", settings.map((s) => [s, s]));
  const own = all.filter((r) => r.setting === state.prices), parts = REPORT.parts.filter((p) => all.some((r) => r.part === p));
  const start = { model_bytes: base.bytes, value: base.value }, ladder = own.filter((r) => r.kind === "ladder"), traces = [];
  const ways = ladder.length ? [ladder] : parts.map((p) => own.filter((r) => r.part === p)).filter((w) => w.length);
  for (const way of ways) {
    const ink = ladder.length ? css("--soft") : colour(parts.indexOf(way[0].part));
    traces.push({ x: [start, ...way].map((r) => r.model_bytes / base.scale), y: [start, ...way].map((r) => r.value), mode: "lines", line: { color: ink, width: 1.5 }, showlegend: false, hoverinfo: "skip" });
  }
  parts.forEach((part, i) => {
    const steps = ways.flat().filter((r) => r.part === part);
    if (!steps.length) return;
    traces.push({
      x: steps.map((r) => r.model_bytes / base.scale), y: steps.map((r) => r.value), mode: "markers", name: plain(part), marker: { symbol: MARKERS[i % 7], size: 10, color: colour(i) },
      text: steps.map((r) => `${plain(part)} ${r.now} → ${r.to} bits<br>${REPORT.words.worse} ${number(r.lost)} [${number(r.low)}, ${number(r.high)}]<br>${REPORT.metric} ${number(r.value)}`), hoverinfo: "text",
    });
  });
  traces.push({ x: [start.model_bytes / base.scale], y: [start.value], mode: "markers", name: "full precision", marker: { symbol: "x", size: 10, color: css("--fg") }, hoverinfo: "name" });
  return plot("prices", traces, { xaxis: { title: { text: `${base.unit}, whole model` } }, yaxis: { title: { text: REPORT.metric }, rangemode: REPORT.words.higher ? "tozero" : undefined } });
};

FIGURES.shapley = function () {
  const all = rows(REPORT.figures.shapley);
  const { shown: settings, more, axis, left, first, last } = panels("shapley", natural(all.map((r) => r.setting)));
  const traces = [], fresh = once();
  const terms = distinct(all.filter((r) => r.kind === "part").map((r) => r.term));
  const widths = distinct(all.map((r) => r.width)).sort(byNumber).reverse().map(String);
  settings.forEach((setting, s) => {
    terms.forEach((term, i) => {
      const own = all.filter((r) => r.setting === setting && r.term === term && r.kind === "part");
      if (!own.length) return;
      traces.push({
        type: "bar", x: own.map((r) => String(r.width)), y: own.map((r) => r.value), name: plain(term), legendgroup: term, showlegend: fresh(term),
        marker: { color: colour(i), pattern: { shape: ["", "/", ".", "x"][i % 4], fillmode: "overlay", fgcolor: css("--bg"), size: 7, solidity: 0.25 } }, xaxis: "x" + axis(s), yaxis: "y" + axis(s),
        text: own.map((r) => `${plain(term)} ${number(r.value)} [${number(r.low)}, ${number(r.high)}]`), hoverinfo: "text", textposition: "none",
      });
    });
    const whole = all.filter((r) => r.setting === setting && r.kind === "whole");
    traces.push({
      x: whole.map((r) => String(r.width)), y: whole.map((r) => r.value), mode: "markers", name: "interaction", legendgroup: "interaction", showlegend: fresh("interaction"), xaxis: "x" + axis(s), yaxis: "y" + axis(s),
      marker: { symbol: "diamond-open", size: 11, color: css("--fg"), line: { width: 2 } }, error_y: { ...bars(whole, "value", "low", "high"), color: css("--fg") },
      text: whole.map((r) => `interaction ${number(r.value)} [${number(r.low)}, ${number(r.high)}]`), hoverinfo: "text",
    });
    Object.assign(more["xaxis" + axis(s)], { type: "category", categoryorder: "array", categoryarray: widths, title: last(s) ? { text: "bits" } : undefined });
    Object.assign(more["yaxis" + axis(s)], { title: first(s) ? { text: `${REPORT.words.worse} of ${REPORT.metric}` } : undefined, matches: s ? "y" : undefined });
  });
  note("shapley", left);
  return plot("shapley", traces, { ...more, barmode: "relative" });
};

FIGURES.methods = function () {
  const all = rows(REPORT.figures.methods), every = distinct(all.map((r) => r.label)), places = every.slice(0, MOST_PLACES);
  const methods = natural(all.map((r) => r.setting)), low = places.length - 1;
  const traces = methods.map((method, i) => {
    const own = all.filter((r) => r.setting === method && places.includes(r.label));
    return {
      // Methods stand a little apart, so that bars do not hide each other.
      x: own.map((r) => r.gain), y: own.map((r) => low - places.indexOf(r.label) + (0.5 / methods.length) * ((methods.length - 1) / 2 - i)),
      name: plain(method), mode: "markers", marker: { symbol: MARKERS[i % 7], size: 9, color: colour(i) }, error_x: { ...bars(own, "gain", "low", "high"), color: colour(i) },
      text: own.map((r) => `${plain(method)}<br>${plain(r.label)}<br>gain ${number(r.gain)} [${number(r.low)}, ${number(r.high)}]${r.seed === null || r.seed === undefined ? "" : `<br>calibration seed ${r.seed}`}`), hoverinfo: "text",
    };
  });
  const shapes = [{ type: "line", x0: 0, x1: 0, yref: "paper", y0: 0, y1: 1, line: { color: css("--soft"), dash: "dot", width: 1 } }];
  const named = { tickvals: places.map((_, i) => low - i), ticktext: places.map((p) => plain(cut(p, narrow() ? 28 : 48))), zeroline: false, range: [-0.6, low + 0.6] };
  note("methods", every.length > places.length ? `The first ${places.length} of ${every.length} recipes; the others are in the data below.` : "");
  return plot("methods", traces, { shapes, height: Math.max(380, 160 + 26 * places.length), xaxis: { title: { text: REPORT.words.gain } }, yaxis: named });
};

FIGURES.view3d = function () {
  const columns = REPORT.figures.view3d, names = Object.keys(columns).filter((c) => c.startsWith("bits_")), all = rows(columns);
  const layers = distinct(all.map((r) => r.layers).filter((v) => v !== null));
  chosenOf("view3d", ["", ...layers]);
  tools("view3d", "Layers", [["", "all cells"], ...layers.map((v) => [v, v])]);
  const shown = all.filter((r) => !state.view3d || r.layers === state.view3d || r.layers === null);
  return cloud(document.getElementById("plot-view3d"), shown, names);
};

// A cloud of points on a plain canvas: no WebGL to be missing, turned by dragging, touch or the arrow keys.
const turn = { around: -0.65, up: 0.4 };
function cloud(place, points, names) {
  let canvas = place.querySelector("canvas");
  if (!canvas) {
    canvas = element("canvas", { tabIndex: 0, style: "width:100%;height:440px;touch-action:pan-y;cursor:grab" });
    canvas.setAttribute("aria-label", "Cells by the width of their parts; arrow keys turn the view");
    place.append(canvas);
    const again = (dx, dy) => { turn.around += dx; turn.up = Math.max(-1.5, Math.min(1.5, turn.up + dy)); FIGURES.view3d(); };
    canvas.addEventListener("pointermove", (e) => { if (e.buttons) again(e.movementX * 0.008, e.movementY * 0.008); });
    canvas.addEventListener("keydown", (e) => {
      const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] }[e.key];
      if (step) { e.preventDefault(); again(...step); }
    });
  }
  const ratio = window.devicePixelRatio || 1, w = place.clientWidth, h = 440;
  canvas.width = w * ratio; canvas.height = h * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.fillStyle = css("--bg"); pen.fillRect(0, 0, w, h);
  const scale = Math.min(w * 0.27, h * 0.31), middle = -0.125, [ca, sa, cu, su] = [Math.cos(turn.around), Math.sin(turn.around), Math.cos(turn.up), Math.sin(turn.up)];
  const at = (v) => {
    const [x, y = 0, z = 0] = v.map((t) => t - middle), across = x * ca - y * sa, deep = x * sa + y * ca;
    return [w / 2 + scale * across, h / 2 - scale * (z * cu - deep * su) , deep * cu + z * su];
  };
  const spot = (r) => names.map((n) => -1 + 0.4 * Math.log2(r[n] || 16)); // 1 … 16 bits on a log scale
  pen.font = "13px system-ui, sans-serif"; pen.lineWidth = 1;
  const labels = [], label = (text, x, y, colour) => labels.push([text, x, y, colour]);
  names.forEach((n, i) => {
    const from = names.map(() => -1), to = [...from]; to[i] = 0.75;
    const [a, b] = [at(from), at(to)];
    pen.strokeStyle = css("--soft"); pen.beginPath(); pen.moveTo(a[0], a[1]); pen.lineTo(b[0], b[1]); pen.stroke();
    label(n.replace("bits_", "") + " bits", b[0] + 5, b[1], css("--fg"));
    for (const bits of [2, 4, 8, 16]) { const t = [...from]; t[i] = spot({ [n]: bits })[i]; const p = at(t); label(bits === 16 ? "–" : String(bits), p[0] + 3, p[1] + 12, css("--soft")); }
  });
  const top = Math.max(...points.map((r) => r.value ?? 0), 1e-9);
  const drawn = points.filter((r) => r.value !== null).map((r, i) => {
    const jitter = (k) => (((i * 7919 + k * 104729) % 97) / 97 - 0.5) * 0.09;
    return [at(spot(r).map((v, k) => v + jitter(k))), r];
  });
  drawn.sort((a, b) => b[0][2] - a[0][2]);
  for (const [p, r] of drawn) {
    const share = Math.max(0, r.value) / top;
    pen.fillStyle = scaleColour(share); pen.strokeStyle = css("--soft");
    pen.beginPath(); pen.arc(p[0], p[1], 5, 0, 7); pen.fill(); pen.stroke();
  }
  // Words last, with a rim of the background, so that no point hides them.
  pen.lineWidth = 3; pen.strokeStyle = css("--bg"); pen.lineJoin = "round";
  for (const [text, x, y, ink] of labels) { pen.fillStyle = ink; pen.strokeText(text, x, y); pen.fillText(text, x, y); }
  legend(pen, top);
}

// Cividis by five stops: even for colour-blind eyes, and in grey.
const STOPS = [[0, 34, 78], [66, 78, 108], [124, 123, 120], [187, 173, 108], [254, 232, 56]];
function scaleColour(share) { // the brightest is the best
  const at = Math.min(3.999, (REPORT.words.higher ? share : 1 - share) * 4), i = Math.floor(at), t = at - i;
  return `rgb(${STOPS[i].map((v, k) => Math.round(v + t * (STOPS[i + 1][k] - v))).join(",")})`;
}
function legend(pen, top) {
  for (let i = 0; i < 100; i++) { pen.fillStyle = scaleColour(i / 99); pen.fillRect(12, 128 - i, 12, 2); }
  pen.fillStyle = css("--fg"); pen.fillText(number(top, 2), 30, 38); pen.fillText("0", 30, 130); pen.fillText(REPORT.metric, 12, 18);
}
