// Figures of further steps: all kinds beside each other, importance of blocks, recovery, and sums of single drops.
const range = (r, low, high, digits = 1) => (known(r[low]) ? ` [${number(r[low], digits)}, ${number(r[high], digits)}]` : "");
const lost = (r) => `${REPORT.words.worse} ${number(r.drop)}${range(r, "drop_low", "drop_high", 3)} against the baseline`;
const ofControl = (r) => (known(r.drop_control) ? `<br>${REPORT.words.worse} ${number(r.drop_control)}${range(r, "drop_control_low", "drop_control_high", 3)} against the control (${REPORT.metric} ${number(r.control)})` : "");
const UNTRAINED = "no recovery";

// A line a recipe; a marker each recovery, filled against the baseline and hollow against the control.
FIGURES.kinds = function () {
  const all = rows(REPORT.figures.kinds), every = distinct(all.map((r) => r.what)), places = every.slice(0, MOST_PLACES);
  const ways = distinct(all.map((r) => r.how)).sort((a, b) => (a === "" ? -1 : b === "" ? 1 : a.localeCompare(b, "en", { numeric: true }))), low = places.length - 1, traces = [];
  const spot = (r, i) => low - places.indexOf(r.what) + (0.55 / ways.length) * ((ways.length - 1) / 2 - i);
  ways.forEach((how, i) => {
    const own = all.filter((r) => r.how === how && places.includes(r.what) && known(r.retained)), beside = own.filter((r) => known(r.retained_control));
    const text = (r) => `${plain(r.what)}<br>${plain(how || UNTRAINED)}<br>${number(r.retained, 1)} %${range(r, "retained_low", "retained_high")} of the baseline; ${lost(r)}${ofControl(r)}<br>${number(r.model_bytes / REPORT.base.scale, 1)} ${REPORT.base.unit}`;
    if (own.length) traces.push({
      x: own.map((r) => r.retained), y: own.map((r) => spot(r, i)), name: plain(how || UNTRAINED), legendgroup: how, mode: "markers", marker: { symbol: MARKERS[i % 7], size: 9, color: colour(i) },
      error_x: { ...bars(own, "retained", "retained_low", "retained_high"), color: colour(i) }, text: own.map(text), hoverinfo: "text",
    });
    if (beside.length) traces.push({
      x: beside.map((r) => r.retained_control), y: beside.map((r) => spot(r, i)), name: plain(`${how || UNTRAINED}, of its control`), legendgroup: how, showlegend: false, mode: "markers",
      marker: { symbol: MARKERS[i % 7] + "-open", size: 10, color: colour(i), line: { width: 2 } }, text: beside.map((r) => `${number(r.retained_control, 1)} % of the control<br>${text(r)}`), hoverinfo: "text",
    });
  });
  const shapes = [{ type: "line", x0: 100, x1: 100, yref: "paper", y0: 0, y1: 1, line: { color: css("--soft"), dash: "dot", width: 1 } }];
  const named = { tickvals: places.map((_, i) => low - i), ticktext: places.map((p) => plain(cut(p, narrow() ? 24 : 52))), zeroline: false, range: [-0.7, low + 0.7] };
  note("kinds", every.length > places.length ? `The first ${places.length} of ${every.length} recipes; the others are in the data below.` : "");
  return plot("kinds", traces, { shapes, height: Math.max(380, 170 + 30 * places.length), xaxis: { title: { text: `${REPORT.metric}, % of the baseline (hollow: of the control)` }, zeroline: false, rangemode: "tozero" }, yaxis: named });
};

// A panel a part: drops above, influence below.
FIGURES.importance = function () {
  const all = rows(REPORT.figures.importance), measures = distinct(all.map((r) => r.measure)), double = measures.includes("influence") && measures.length > 1;
  const { shown: parts, more, axis, under, left, first, last } = panels("importance", distinct(all.map((r) => r.part)), undefined, double), traces = [], fresh = once();
  parts.forEach((part, p) => measures.forEach((measure, i) => {
    const own = all.filter((r) => r.part === part && r.measure === measure).sort((a, b) => a.block - b.block), below = double && measure === "influence";
    if (!own.length) return;
    const at = below ? { xaxis: "x" + under(p), yaxis: "y" + under(p) } : { xaxis: "x" + axis(p), yaxis: "y" + axis(p) }, x = own.map((r) => r.block), banded = own.filter((r) => r.band_low !== null);
    if (banded.length > 1) {
      const bx = banded.map((r) => r.block);
      traces.push({ x: [...bx, ...[...bx].reverse()], y: [...banded.map((r) => r.band_high), ...banded.map((r) => r.band_low).reverse()], fill: "toself", mode: "none", opacity: 0.2, fillcolor: colour(i), showlegend: false, hoverinfo: "skip", legendgroup: measure, ...at });
    }
    traces.push({
      x, y: own.map((r) => r.effect), name: plain(measure), legendgroup: measure, showlegend: fresh(measure), mode: "lines+markers", line: { color: colour(i), dash: DASHES[i % 4], width: 2 }, ...at,
      marker: { symbol: MARKERS[i % 7], size: 8, color: colour(i) }, error_y: { ...bars(own, "effect", "low", "high"), color: colour(i) },
      text: own.map((r) => `${plain(part)} ${r.block}, ${plain(measure)}<br>${number(r.effect)}${range(r, "low", "high", 3)}<br>rank ${r.rank} of ${own.length}`), hoverinfo: "text",
    });
  }));
  parts.forEach((_, p) => {
    const lowest = double ? under(p) : axis(p), alone = measures.length === 1 && measures[0] === "influence";
    Object.assign(more["xaxis" + axis(p)], { zeroline: false, dtick: tickStep(all, parts[p]) });
    Object.assign(more["yaxis" + axis(p)], { title: first(p) ? { text: alone ? "1 − cosine" : `${REPORT.words.worse} of ${REPORT.metric}` } : undefined });
    if (double) Object.assign(more["yaxis" + lowest], { title: first(p) ? { text: "influence" } : undefined, rangemode: "tozero" });
    Object.assign(more["xaxis" + lowest], { title: last(p) ? { text: "block" } : undefined, zeroline: false, dtick: tickStep(all, parts[p]) });
  });
  note("importance", left);
  return plot("importance", traces, more);
};

// Whole numbers of blocks, about eight of them.
function tickStep(all, part) {
  return Math.max(1, Math.ceil((1 + Math.max(...all.filter((r) => r.part === part).map((r) => r.block))) / 8));
}

// A line what was compressed and how it was trained: against steps from 0 on, or against bytes.
FIGURES.recovery = function () {
  const all = rows(REPORT.figures.recovery), base = REPORT.base;
  chosenOf("recovery", ["steps", "bytes"]);
  tools("recovery", "Against", [["steps", "training steps"], ["bytes", `${base.unit} of the whole model`]]);
  const bytes = state.recovery === "bytes", at = (r) => (bytes ? r.model_bytes / base.scale : r.steps), curves = distinct(all.map((r) => r.what + "\n" + r.how)), traces = [];
  curves.forEach((curve, i) => {
    const own = all.filter((r) => r.what + "\n" + r.how === curve), line = own.filter((r) => !r.point).sort((a, b) => a.steps - b.steps), seeds = own.filter((r) => r.point), name = plain(curve.replace("\n", ", ")), control = line.some((r) => r.is_control);
    const text = (r) => `${name}<br>${r.steps ? `${r.steps} steps${known(r.chosen) ? `, step ${r.chosen} chosen on held-out images` : ""}${known(r.seed) ? `, seed ${r.seed}` : ""}` : "before"}<br>${REPORT.metric} ${number(r.value)}, ${number(r.retained, 1)} %${range(r, "retained_low", "retained_high")} of the baseline; ${lost(r)}${ofControl(r)}`;
    traces.push({
      x: line.map(at), y: line.map((r) => r.retained), name, legendgroup: curve, mode: "lines+markers", line: { color: colour(i), width: 2, dash: control ? "dash" : "solid" }, marker: { symbol: MARKERS[i % 7], size: 9, color: colour(i) },
      error_y: { ...bars(line, "retained", "retained_low", "retained_high"), color: colour(i) }, text: line.map(text), hoverinfo: "text",
    });
    if (seeds.length) traces.push({ x: seeds.map(at), y: seeds.map((r) => r.retained), name, legendgroup: curve, showlegend: false, mode: "markers", marker: { symbol: MARKERS[i % 7] + "-open", size: 8, color: colour(i) }, text: seeds.map(text), hoverinfo: "text" });
  });
  const shapes = [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 100, y1: 100, line: { color: css("--soft"), dash: "dot", width: 1 } }];
  return plot("recovery", traces, { shapes, xaxis: { title: { text: bytes ? `${base.unit}, whole model` : "training steps" }, zeroline: false }, yaxis: { title: { text: REPORT.words.axis }, rangemode: "tozero" } });
};

// The drop of pieces together against the sum of their single drops.
FIGURES.together = function () {
  const all = rows(REPORT.figures.together), ways = distinct(all.map((r) => r.by)), ends = all.flatMap((r) => [r.together, r.sum]).filter(known), from = Math.min(0, ...ends), to = Math.max(...ends, 1e-9);
  const traces = [{ x: [from, to], y: [from, to], mode: "lines", name: "the sum of the single drops", line: { color: css("--soft"), dash: "dot", width: 1.5 }, hoverinfo: "skip" }];
  ways.forEach((by, i) => {
    const own = all.filter((r) => r.by === by), faces = own.map((r) => MARKERS[i % 7] + (r.misleads ? "" : "-open"));
    const ended = own.map((r) => ({ ...r, low: known(r.low) ? r.sum + r.low : null, high: known(r.high) ? r.sum + r.high : null }));
    traces.push({
      x: own.map((r) => r.sum), y: own.map((r) => r.together), name: `pieces: ${plain(by)}`, mode: "markers", marker: { symbol: faces, size: 10, color: colour(i), line: { width: 2, color: colour(i) } },
      error_y: { ...bars(ended, "together", "low", "high"), color: colour(i) },
      text: own.map((r) => `${plain(r.what)}<br>together ${number(r.together)}, sum of ${r.n} single ones ${number(r.sum)}<br>difference ${number(r.excess)}${range(r, "low", "high", 3)}`), hoverinfo: "text",
    });
  });
  note("together", "Filled: the interval of the difference leaves out 0.");
  return plot("together", traces, { xaxis: { title: { text: `sum of the single ${REPORT.words.worse}s of ${REPORT.metric}` } }, yaxis: { title: { text: `${REPORT.words.worse} together` } } });
};
