// Figures 1 to 3. Each draws from REPORT.figures.<name> and is drawn again when the theme or a choice changes.
const FIGURES = {};
const state = {};

function layout(more = {}) {
  const axis = { gridcolor: css("--line"), zerolinecolor: css("--line"), linecolor: css("--line"), automargin: true };
  const base = {
    paper_bgcolor: css("--bg"), plot_bgcolor: css("--bg"), font: { color: css("--fg"), size: 13 },
    margin: { l: 55, r: 15, t: 30, b: 95 }, hovermode: "closest", showlegend: true,
    legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0 }, hoverlabel: { align: "left" },
  };
  const axes = Object.fromEntries(Object.entries(more).filter(([k]) => /^[xy]axis/.test(k)).map(([k, v]) => [k, { ...axis, ...v }]));
  return { ...base, xaxis: axis, yaxis: axis, ...more, ...axes };
}

function plot(name, traces, more) {
  const node = document.getElementById("plot-" + name);
  return Plotly.react(node, traces, layout(more), { responsive: true, displaylogo: false, displayModeBar: false });
}

// A panel a value: side by side, or one below the other on a phone.
function panels(values, titles = values) {
  const n = values.length, more = {}, annotations = [];
  const stacked = narrow();
  values.forEach((value, i) => {
    const k = i ? i + 1 : "", gap = stacked ? 0.16 : 0.05;
    const size = (1 - gap * (n - 1)) / n, from = i * (size + gap);
    const domain = [from, from + size];
    more["xaxis" + k] = { domain: stacked ? [0, 1] : domain, anchor: "y" + k };
    more["yaxis" + k] = { domain: stacked ? [1 - domain[1], 1 - domain[0]] : [0, 1], anchor: "x" + k };
    const top = stacked ? 1 - domain[0] : 1;
    annotations.push({ text: `<b>${plain(titles[i])}</b>`, showarrow: false, xref: "paper", yref: "paper", x: stacked ? 0 : domain[0], y: top, xanchor: "left", yanchor: "bottom" });
  });
  const height = stacked && n > 1 ? 300 * n + 60 : undefined;
  return { more: { ...more, annotations, height }, axis: (i) => (i ? String(i + 1) : "") };
}

// plotly reads a little markup in labels: what comes from a recipe is shown as it is.
function plain(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

const bars = (own, value, low, high) => ({
  type: "data", symmetric: false, thickness: 1.4, width: 4,
  array: own.map((r) => (r[high] === null ? 0 : Math.max(0, r[high] - r[value]))),
  arrayminus: own.map((r) => (r[low] === null ? 0 : Math.max(0, r[value] - r[low]))),
});

FIGURES.dropoff = function () {
  const all = rows(REPORT.figures.dropoff), parts = distinct(all.map((r) => r.parts));
  const options = [["", "whole parts"], ...parts.map((p) => [p, `every line of ${p}`])];
  tools("dropoff", "Lines", options);
  const chosen = state.dropoff || "";
  const shown = all.filter((r) => (chosen ? r.parts === chosen : r.headline));
  const settings = distinct(shown.map((r) => r.setting));
  const { more, axis } = panels(settings);
  const widths = distinct(shown.map((r) => r.width)).sort(byNumber).reverse();
  const lineOf = (r) => (chosen ? r.line : r.parts), lines = distinct(shown.map(lineOf)), traces = [];
  settings.forEach((setting, s) => lines.forEach((line, i) => {
    const own = shown.filter((r) => !r.point && r.setting === setting && lineOf(r) === line).sort((a, b) => b.width - a.width);
    if (!own.length) return;
    // Lines stand a little apart so that bars do not hide each other.
    const x = own.map((r) => widths.indexOf(r.width) + 0.05 * (i - (lines.length - 1) / 2) * Math.min(1, 8 / lines.length));
    traces.push({
      x, y: own.map((r) => r.retained), name: plain(line), legendgroup: line, showlegend: s === 0, xaxis: "x" + axis(s), yaxis: "y" + axis(s),
      mode: "lines+markers", line: { color: colour(i), dash: DASHES[Math.floor(i / 7) % 4], width: 2 }, marker: { symbol: MARKERS[i % 7], size: 8, color: colour(i) },
      error_y: { ...bars(own, "retained", "retained_low", "retained_high"), color: colour(i) },
      text: own.map((r) => `${plain(r.line)}<br>${r.width} bits, ${number(r.retained, 1)} % kept<br>drop ${number(r.drop)} [${number(r.drop_low)}, ${number(r.drop_high)}]`),
      hoverinfo: "text",
    });
    const seeds = shown.filter((r) => r.point && r.setting === setting && lineOf(r) === line);
    if (seeds.length) traces.push({
      x: seeds.map((r) => x[own.findIndex((o) => o.width === r.width)]), y: seeds.map((r) => r.retained), name: plain(line), legendgroup: line, showlegend: false,
      xaxis: "x" + axis(s), yaxis: "y" + axis(s), mode: "markers", marker: { symbol: MARKERS[i % 7] + "-open", size: 7, color: colour(i) },
      text: seeds.map((r) => `${plain(r.line)}<br>calibration seed ${r.seed}, ${r.width} bits, ${number(r.retained, 1)} % kept`), hoverinfo: "text",
    });
  }));
  const noise = Math.max(0, ...shown.map((r) => (r.noise ? (100 * r.noise) / Math.abs(r.baseline) : 0)));
  const shapes = settings.flatMap((_, s) => [
    { type: "rect", xref: `x${axis(s)} domain`, yref: "y" + axis(s), x0: 0, x1: 1, y0: 100 - noise, y1: 100 + noise, fillcolor: css("--line"), line: { width: 0 }, layer: "below" },
    { type: "line", xref: `x${axis(s)} domain`, yref: "y" + axis(s), x0: 0, x1: 1, y0: 100, y1: 100, line: { color: css("--soft"), dash: "dot", width: 1 } },
  ]);
  settings.forEach((_, s) => {
    Object.assign(more["xaxis" + axis(s)], { tickvals: widths.map((_, i) => i), ticktext: widths.map(String), title: { text: "bits" }, zeroline: false });
    Object.assign(more["yaxis" + axis(s)], { title: s === 0 || narrow() ? { text: `${REPORT.metric}, % of baseline` } : undefined, rangemode: "tozero" });
  });
  return plot("dropoff", traces, { ...more, shapes });
};

FIGURES.frontier = function () {
  const all = rows(REPORT.figures.frontier), settings = distinct(all.map((r) => r.setting));
  const traces = settings.map((setting, i) => {
    const own = all.filter((r) => r.setting === setting).sort((a, b) => a.bits_per_weight - b.bits_per_weight);
    return {
      x: own.map((r) => r.bits_per_weight), y: own.map((r) => r.value), name: plain(setting), mode: "lines+markers", line: { shape: "hv", color: colour(i), width: 2, dash: DASHES[i % 4] },
      marker: { size: 10, symbol: own.map((r) => MARKERS[i % 7] + (r.like_baseline ? "-open" : "")), color: colour(i), line: { width: 2, color: colour(i) } },
      text: own.map((r) => `${plain(r.recipe)}<br>${REPORT.metric} ${number(r.value)}, drop ${number(r.drop)} [${number(r.low)}, ${number(r.high)}]<br>${number(r.bits_per_weight, 2)} bits per weight${r.held_out ? ", held-out images" : ""}`),
      hoverinfo: "text",
    };
  });
  return plot("frontier", traces, { xaxis: { title: { text: "bits per weight, whole model" } }, yaxis: { title: { text: REPORT.metric + (all.some((r) => r.held_out) ? ", held-out images" : "") } }, showlegend: true });
};

FIGURES.blocks = function () {
  const all = rows(REPORT.figures.blocks), label = (r) => `${r.setting}, ${r.width} bits`;
  const kinds = distinct(all.map(label)).sort();
  const breadth = (k) => distinct(all.filter((r) => label(r) === k).map((r) => r.part + r.first + r.kind)).length;
  const spread = (k) => {
    const own = all.filter((r) => label(r) === k && r.headline);
    return distinct(own.map((r) => r.part + r.kind)).reduce((sum, g) => { const e = own.filter((r) => r.part + r.kind === g).map((r) => r.effect); return sum + Math.max(...e) - Math.min(...e); }, 0);
  };
  const best = [...kinds].sort((a, b) => spread(b) - spread(a) || breadth(b) - breadth(a))[0];
  state.blocks = state.blocks || best;
  tools("blocks", "Method and width", kinds.map((k) => [k, k]));
  const shown = all.filter((r) => label(r) === state.blocks && r.headline), parts = distinct(shown.map((r) => r.part));
  const { more, axis } = panels(parts), traces = [];
  const lines = distinct(shown.map((r) => r.kind)).sort().reverse();
  parts.forEach((part, p) => lines.forEach((line, i) => {
    const own = shown.filter((r) => r.part === part && r.kind === line).sort((a, b) => a.first - b.first);
    if (!own.length) return;
    const x = own.map((r) => (r.first + r.last) / 2), at = { xaxis: "x" + axis(p), yaxis: "y" + axis(p), legendgroup: line };
    const banded = own.filter((r) => r.band_low !== null), bx = banded.map((r) => (r.first + r.last) / 2);
    if (banded.length > 1) {
      traces.push({ x: [...bx, ...[...bx].reverse()], y: [...banded.map((r) => r.band_high), ...banded.map((r) => r.band_low).reverse()], fill: "toself", mode: "none", opacity: 0.25, fillcolor: colour(i), showlegend: false, hoverinfo: "skip", ...at });
    }
    traces.push({
      x, y: own.map((r) => r.effect), name: plain(line), showlegend: p === parts.findIndex((q) => shown.some((r) => r.part === q && r.kind === line)), mode: "lines+markers",
      marker: { symbol: MARKERS[i % 7], size: 8, color: colour(i) }, line: { color: colour(i), dash: own[0].kind === "leave one out" ? "dash" : "solid" },
      error_y: { ...bars(own, "effect", "low", "high"), color: colour(i) },
      text: own.map((r) => `${plain(line)}: ${plain(r.line)}<br>blocks ${r.first}–${r.last}<br>${number(r.effect)} [${number(r.low)}, ${number(r.high)}]${r.nll === null ? "" : `<br>ΔNLL ${number(r.nll, 4)}`}`), hoverinfo: "text", ...at,
    });
  }));
  const nll = shown.some((r) => r.nll !== null);
  parts.forEach((_, p) => {
    Object.assign(more["xaxis" + axis(p)], { title: { text: "block" }, zeroline: false });
    Object.assign(more["yaxis" + axis(p)], { title: p === 0 ? { text: `effect on ${REPORT.metric}` } : undefined });
  });
  return plot("blocks", nll ? [...traces, ...nllTraces(shown, parts, lines, axis, more)] : traces, { ...more, height: nll ? 620 : more.height });
};

// The same effect on the likelihood, in a second row: it moves before the metric does.
function nllTraces(shown, parts, lines, axis, more) {
  const traces = [], n = parts.length;
  if (narrow()) return traces;
  parts.forEach((part, p) => {
    more["yaxis" + axis(p)].domain = [0.56, 1];
    const k = n + p + 1;
    more["xaxis" + k] = { domain: more["xaxis" + axis(p)].domain, anchor: "y" + k, title: { text: "block" }, zeroline: false };
    more["yaxis" + k] = { domain: [0, 0.4], anchor: "x" + k, title: p === 0 ? { text: "ΔNLL" } : undefined };
    more["xaxis" + axis(p)].title = undefined;
    lines.forEach((line, i) => {
      const own = shown.filter((r) => r.part === part && r.kind === line && r.nll !== null).sort((a, b) => a.first - b.first);
      if (own.length) traces.push({ x: own.map((r) => (r.first + r.last) / 2), y: own.map((r) => r.nll), xaxis: "x" + k, yaxis: "y" + k, legendgroup: line, showlegend: false, mode: "lines+markers", marker: { symbol: MARKERS[i % 7], color: colour(i), size: 7 }, line: { color: colour(i), dash: own[0].kind === "leave one out" ? "dash" : "solid" }, name: plain(line) });
    });
  });
  return traces;
}

// A choice above a figure, made once.
function tools(name, text, options) {
  const place = document.getElementById("tools-" + name);
  if (place.childElementCount || options.length < 2) return;
  place.append(choice(text, options, (value) => { state[name] = value; FIGURES[name](); }, state[name]).label);
}
