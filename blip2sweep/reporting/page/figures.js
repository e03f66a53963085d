// Figures 1 to 3. Each draws from REPORT.figures.<name> and is drawn again when the theme or a choice changes.
const FIGURES = {};
const state = {};
const kept = () => (REPORT.words.higher ? "kept" : "of the baseline");
const MOST_PANELS = 12, PANEL = { wide: 250, high: 300, double: 470, between: 78 }; // pixels

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
  const node = document.getElementById("plot-" + name), rows = legendRows(traces, node.clientWidth - 60);
  // A long legend makes the figure higher instead of its panels lower.
  const high = rows > 3 ? (more.height || 380) + 27 * (rows - 2) : more.height;
  return Plotly.react(node, traces, layout({ ...more, height: high }), { responsive: true, displaylogo: false, displayModeBar: false });
}

// How many rows the legend takes, about: plotly gives every name a line and 7 pixels a letter.
function legendRows(traces, wide) {
  let rows = 1, at = 0;
  for (const t of traces.filter((t) => t.showlegend !== false && t.name)) {
    const own = 55 + 7 * t.name.length;
    if (at && at + own > wide) { rows += 1; at = 0; }
    at += own;
  }
  return rows;
}

// A line below a figure: what it leaves out, or why it is not drawn.
function note(name, ...told) {
  document.getElementById("note-" + name).textContent = told.filter(Boolean).join(" ");
}

// A panel a value, in as many rows as it takes, one below the other on a phone. With `double` each has a second pair of
// axes under its own. Returns the values that fit, the layout, and where a panel stands.
function panels(name, values, titles = values, double = false) {
  const n = Math.min(values.length, MOST_PANELS), more = {}, annotations = [];
  const wide = document.getElementById("plot-" + name).clientWidth - 80;
  const down = Math.ceil(n / (narrow() ? 1 : Math.max(1, Math.floor(wide / PANEL.wide)))), across = Math.ceil(n / down);
  const high = double ? PANEL.double : PANEL.high, gapX = Math.min(0.05, 0.3 / across), gapY = PANEL.between / (down * high);
  const width = (1 - gapX * (across - 1)) / across, height = (1 - gapY * (down - 1)) / down;
  const axis = (i) => (i ? String(i + 1) : ""), under = (i) => String(n + i + 1);
  const room = Math.floor((wide * width) / 7.5); // letters of a title
  for (let i = 0; i < n; i++) {
    const from = (i % across) * (width + gapX), top = 1 - Math.floor(i / across) * (height + gapY), x = [from, Math.min(1, from + width)];
    more["xaxis" + axis(i)] = { domain: x, anchor: "y" + axis(i) };
    more["yaxis" + axis(i)] = { domain: [Math.max(0, top - height * (double ? 0.5 : 1)), top], anchor: "x" + axis(i) };
    if (double) {
      more["xaxis" + under(i)] = { domain: x, anchor: "y" + under(i) };
      more["yaxis" + under(i)] = { domain: [Math.max(0, top - height), top - height * 0.62], anchor: "x" + under(i) };
    }
    annotations.push({ text: `<b>${plain(cut(titles[i], room))}</b>`, hovertext: plain(titles[i]), showarrow: false, xref: "paper", yref: "paper", x: from, y: top, xanchor: "left", yanchor: "bottom" });
  }
  const tall = down > 1 || double ? down * high + 130 : undefined;
  const left = values.length > n ? `The first ${n} of ${values.length} panels; the others are in the data below.` : "";
  return { shown: values.slice(0, n), more: { ...more, annotations, height: tall }, axis, under, left, first: (i) => i % across === 0, last: (i) => i + across >= n };
}

function cut(text, length) {
  const whole = String(text);
  return whole.length > length ? whole.slice(0, Math.max(1, length - 1)) + "…" : whole;
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

// True the first time a name is asked for: a line is named once in the legend, in whichever panel it comes first.
function once() {
  const seen = new Set();
  return (name) => !seen.has(name) && Boolean(seen.add(name));
}

FIGURES.dropoff = function () {
  const all = rows(REPORT.figures.dropoff), parts = distinct(all.map((r) => r.parts));
  const whole = all.some((r) => r.headline) ? [["", "whole parts"]] : [];
  const options = [...whole, ...parts.map((p) => [p, `every line of ${p}`])];
  tools("dropoff", "Lines", options);
  const chosen = chosenOf("dropoff", options.map(([value]) => value));
  const shown = all.filter((r) => (chosen ? r.parts === chosen : r.headline));
  const { shown: settings, more, axis, left, first, last } = panels("dropoff", natural(shown.map((r) => r.setting)));
  const widths = distinct(shown.map((r) => r.width)).sort(byNumber).reverse();
  const lineOf = (r) => (chosen ? r.line : r.parts), lines = distinct(shown.map(lineOf)), traces = [], fresh = once();
  settings.forEach((setting, s) => lines.forEach((line, i) => {
    const own = shown.filter((r) => !r.point && r.setting === setting && lineOf(r) === line).sort((a, b) => b.width - a.width);
    if (!own.length) return;
    // Lines stand a little apart so that bars do not hide each other.
    const x = own.map((r) => widths.indexOf(r.width) + 0.05 * (i - (lines.length - 1) / 2) * Math.min(1, 8 / lines.length));
    traces.push({
      x, y: own.map((r) => r.retained), name: plain(line), legendgroup: line, showlegend: fresh(line), xaxis: "x" + axis(s), yaxis: "y" + axis(s),
      mode: "lines+markers", line: { color: colour(i), dash: DASHES[Math.floor(i / 7) % 4], width: 2 }, marker: { symbol: MARKERS[i % 7], size: 8, color: colour(i) },
      error_y: { ...bars(own, "retained", "retained_low", "retained_high"), color: colour(i) },
      text: own.map((r) => `${plain(r.line)}<br>${r.width} bits, ${number(r.retained, 1)} % ${kept()}<br>${REPORT.words.worse} ${number(r.drop)} [${number(r.drop_low)}, ${number(r.drop_high)}]${known(r.changed) ? `<br>${r.changed} of ${r.images} images changed` : ""}${r.stopped ? `<br>${plain(r.stopped)}; intervals of 99.5 %` : ""}`),
      hoverinfo: "text",
    });
    // Further calibration seeds are points beside the line.
    const seeds = shown.filter((r) => r.point && r.setting === setting && lineOf(r) === line);
    if (seeds.length) traces.push({
      x: seeds.map((r) => x[own.findIndex((o) => o.width === r.width)]), y: seeds.map((r) => r.retained), name: plain(line), legendgroup: line, showlegend: false,
      xaxis: "x" + axis(s), yaxis: "y" + axis(s), mode: "markers", marker: { symbol: MARKERS[i % 7] + "-open", size: 7, color: colour(i) },
      text: seeds.map((r) => `${plain(r.line)}<br>calibration seed ${r.seed}, ${r.width} bits, ${number(r.retained, 1)} % ${kept()}`), hoverinfo: "text",
    });
  }));
  const noise = Math.max(0, ...shown.map((r) => (r.noise ? (100 * r.noise) / Math.abs(r.baseline) : 0)));
  const shapes = settings.flatMap((_, s) => [
    { type: "rect", xref: `x${axis(s)} domain`, yref: "y" + axis(s), x0: 0, x1: 1, y0: 100 - noise, y1: 100 + noise, fillcolor: css("--line"), line: { width: 0 }, layer: "below" },
    { type: "line", xref: `x${axis(s)} domain`, yref: "y" + axis(s), x0: 0, x1: 1, y0: 100, y1: 100, line: { color: css("--soft"), dash: "dot", width: 1 } },
  ]);
  settings.forEach((_, s) => {
    const run = new Set(shown.filter((r) => r.setting === settings[s]).map((r) => r.width)); // a tick where something was run
    const ticks = widths.map((w, i) => [i, w]).filter(([, w]) => run.has(w));
    Object.assign(more["xaxis" + axis(s)], { tickvals: ticks.map(([i]) => i), ticktext: ticks.map(([, w]) => String(w)), range: [-0.5, widths.length - 0.5], title: last(s) ? { text: "bits" } : undefined, zeroline: false });
    Object.assign(more["yaxis" + axis(s)], { title: first(s) ? { text: REPORT.words.axis } : undefined, rangemode: "tozero", matches: s ? "y" : undefined });
  });
  note("dropoff", left);
  return plot("dropoff", traces, { ...more, shapes });
};

const SIZES = { bits_per_weight: "bits per weight, whole model", model_bytes: "bytes, whole model", seconds_batch_1: "seconds an image, batch 1, packed", seconds_batch_largest: "seconds an image, largest batch, packed", export_bytes: "bytes on disk, all files", params: "parameters, whole model", gflops: "GFLOP an image", latency_ms_median: "ms an image, batch 1, median" };
const ALL_KINDS = "all kinds";

FIGURES.frontier = function () {
  const all = rows(REPORT.figures.frontier), sizes = distinct(all.map((r) => r.by));
  chosenOf("frontier", sizes);
  tools("frontier", "Size", sizes.map((s) => [s, SIZES[s]]));
  const by = state.frontier, shown = all.filter((r) => r.by === by), settings = natural(shown.map((r) => r.setting)).sort((a, b) => (b === ALL_KINDS) - (a === ALL_KINDS));
  const face = (r) => (r.like_baseline === null ? "-open-dot" : r.like_baseline ? "-open" : "");
  const traces = settings.map((setting, i) => {
    const own = shown.filter((r) => r.setting === setting).sort((a, b) => a[by] - b[by]);
    if (setting === ALL_KINDS) {
      return { x: own.map((r) => r[by]), y: own.map((r) => r.value), name: ALL_KINDS, mode: "lines", line: { shape: "hv", color: css("--soft"), width: 7 }, opacity: 0.35, hoverinfo: "skip" };
    }
    const bounds = (r) => (r.low === null ? "no interval" : `[${number(r.low)}, ${number(r.high)}]`);
    return {
      x: own.map((r) => r[by]), y: own.map((r) => r.value), name: plain(setting), mode: "lines+markers", line: { shape: "hv", color: colour(i), width: 2, dash: DASHES[i % 4] },
      marker: { size: 10, symbol: own.map((r) => MARKERS[i % 7] + face(r)), color: colour(i), line: { width: 2, color: colour(i) } },
      text: own.map((r) => `${plain(r.recipe)}<br>${REPORT.metric} ${number(r.value)}, ${REPORT.words.worse} ${number(r.drop)} ${bounds(r)}<br>${number(r.bits_per_weight, 2)} bits per weight${r.held_out ? ", held-out images" : ""}`),
      hoverinfo: "text",
    };
  });
  return plot("frontier", traces, { xaxis: { title: { text: SIZES[by] } }, yaxis: { title: { text: REPORT.metric + (shown.some((r) => r.held_out) ? ", held-out images" : "") } } });
};

FIGURES.blocks = function () {
  const all = rows(REPORT.figures.blocks), label = (r) => `${r.setting}, ${r.width} bits`;
  const kinds = distinct(all.map(label)).sort();
  const breadth = (k) => distinct(all.filter((r) => label(r) === k).map((r) => r.part + r.first + r.kind)).length;
  const spread = (k) => {
    const own = all.filter((r) => label(r) === k && r.headline);
    return distinct(own.map((r) => r.part + r.kind)).reduce((sum, g) => { const e = own.filter((r) => r.part + r.kind === g).map((r) => r.effect); return sum + Math.max(...e) - Math.min(...e); }, 0);
  };
  chosenOf("blocks", kinds, [...kinds].sort((a, b) => spread(b) - spread(a) || breadth(b) - breadth(a))[0]);
  tools("blocks", "Method and width", kinds.map((k) => [k, k]));
  const shown = all.filter((r) => label(r) === state.blocks && r.headline), likely = shown.some((r) => r.nll !== null);
  const { shown: parts, more, axis, under, left, first, last } = panels("blocks", distinct(shown.map((r) => r.part)), undefined, likely);
  const lines = distinct(shown.map((r) => r.kind)).sort().reverse(), traces = [], fresh = once();
  const style = (line, i) => ({ mode: "lines+markers", legendgroup: line, name: plain(line), line: { color: colour(i), dash: line === "leave one out" ? "dash" : "solid" } });
  parts.forEach((part, p) => lines.forEach((line, i) => {
    const own = shown.filter((r) => r.part === part && r.kind === line).sort((a, b) => a.first - b.first);
    if (!own.length) return;
    const middle = (list) => list.map((r) => (r.first + r.last) / 2), at = { xaxis: "x" + axis(p), yaxis: "y" + axis(p) };
    const banded = own.filter((r) => r.band_low !== null), bx = middle(banded);
    if (banded.length > 1) {
      traces.push({ x: [...bx, ...[...bx].reverse()], y: [...banded.map((r) => r.band_high), ...banded.map((r) => r.band_low).reverse()], fill: "toself", mode: "none", opacity: 0.25, fillcolor: colour(i), showlegend: false, hoverinfo: "skip", legendgroup: line, ...at });
    }
    traces.push({
      x: middle(own), y: own.map((r) => r.effect), showlegend: fresh(line), ...style(line, i), ...at,
      marker: { symbol: MARKERS[i % 7], size: 8, color: colour(i) }, error_y: { ...bars(own, "effect", "low", "high"), color: colour(i) },
      text: own.map((r) => `${plain(line)}: ${plain(r.line)}<br>blocks ${r.first}–${r.last}<br>${number(r.effect)} [${number(r.low)}, ${number(r.high)}]${r.nll === null ? "" : `<br>ΔNLL ${number(r.nll, 4)}`}`), hoverinfo: "text",
    });
    // The same effect on the likelihood, under it: it moves before the metric does.
    const known = own.filter((r) => r.nll !== null);
    if (known.length) traces.push({ x: middle(known), y: known.map((r) => r.nll), xaxis: "x" + under(p), yaxis: "y" + under(p), showlegend: false, ...style(line, i), marker: { symbol: MARKERS[i % 7], size: 7, color: colour(i) } });
  }));
  parts.forEach((_, p) => {
    const below = likely ? under(p) : axis(p);
    Object.assign(more["xaxis" + axis(p)], { zeroline: false });
    Object.assign(more["yaxis" + axis(p)], { title: first(p) ? { text: `effect on ${REPORT.metric}` } : undefined });
    if (likely) Object.assign(more["yaxis" + below], { title: first(p) ? { text: "ΔNLL" } : undefined });
    Object.assign(more["xaxis" + below], { title: last(p) ? { text: "block" } : undefined, zeroline: false });
  });
  note("blocks", left);
  return plot("blocks", traces, more);
};

// A choice above a figure, made once.
function tools(name, text, options) {
  const place = document.getElementById("tools-" + name);
  if (place.childElementCount || options.length < 2) return;
  place.append(choice(text, options, (value) => { state[name] = value; remember(name, value, name); draw(name); }, state[name]).label);
}
