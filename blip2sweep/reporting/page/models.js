// Several models in one page: their drops by role, and the choice of the model whose analysis is shown.
const COMPARED = ((node) => node && JSON.parse(node.textContent))(document.getElementById("compared"));
const dataOf = (name) => (name === "cells" ? REPORT.cells : name === "models" ? COMPARED.data : REPORT.figures[name]);

// A panel a role, a line a model; each in % of its own baseline, downwards.
FIGURES.models = function () {
  const all = rows(COMPARED.data).filter((r) => r.drop !== null), models = COMPARED.models;
  chosenOf("models", COMPARED.settings);
  tools("models", "Method", COMPARED.settings.map((s) => [s, s]));
  const own = all.filter((r) => r.setting === state.models);
  const roles = distinct(own.map((r) => r.role)).filter((role) => distinct(own.filter((r) => r.role === role).map((r) => r.model)).length > 1);
  const { shown, more, axis, left, first, last } = panels("models", roles), traces = [], fresh = once();
  const widths = distinct(own.map((r) => r.width)).sort(byNumber).reverse();
  shown.forEach((role, p) => models.forEach((model, i) => {
    const line = own.filter((r) => r.role === role && r.model === model).sort((a, b) => b.width - a.width);
    if (!line.length) return;
    traces.push({
      x: line.map((r) => widths.indexOf(r.width) + 0.06 * (i - (models.length - 1) / 2) * Math.min(1, 6 / models.length)), y: line.map((r) => r.drop),
      name: plain(model), legendgroup: model, showlegend: fresh(model), xaxis: "x" + axis(p), yaxis: "y" + axis(p), mode: "lines+markers",
      line: { color: colour(i), dash: DASHES[Math.floor(i / 7) % 4], width: 2 }, marker: { symbol: MARKERS[i % 7], size: 8, color: colour(i) },
      error_y: { ...bars(line, "drop", "drop_low", "drop_high"), color: colour(i) }, text: line.map(hover), hoverinfo: "text",
    });
  }));
  const ends = own.flatMap((r) => [r.drop, r.drop_low, r.drop_high]).filter(known), room = 0.04 * (Math.max(0, ...ends) - Math.min(0, ...ends)) || 1;
  const range = [Math.max(0, ...ends) + room, Math.min(0, ...ends) - room];
  const shapes = shown.map((_, p) => ({ type: "line", xref: `x${axis(p)} domain`, yref: "y" + axis(p), x0: 0, x1: 1, y0: 0, y1: 0, line: { color: css("--soft"), dash: "dot", width: 1 } }));
  shown.forEach((_, p) => {
    Object.assign(more["xaxis" + axis(p)], { tickvals: widths.map((_, i) => i), ticktext: widths.map(String), title: last(p) ? { text: "bits" } : undefined, zeroline: false, range: [-0.4, widths.length - 0.6] });
    Object.assign(more["yaxis" + axis(p)], { title: first(p) ? { text: `${COMPARED.worse}, % of own ${COMPARED.metric}` } : undefined, range, zeroline: false });
  });
  note("models", left);
  return plot("models", traces, { ...more, shapes });
};

function hover(r) {
  const size = r.saved_bytes === null ? "" : `<br>saves ${number(r.saved_bytes / COMPARED.scale, 1)} ${COMPARED.unit}`;
  return `${plain(r.model)}: ${plain(r.role)}, ${r.width} bits<br>${COMPARED.worse} ${number(r.drop, 1)} % [${number(r.drop_low, 1)}, ${number(r.drop_high, 1)}]<br>${COMPARED.metric} ${number(r.value)} of ${number(r.baseline)}${size}`;
}

// ---- which model

let chosen = 0;
const bodies = []; // the analysis of each model, as the page came
const ending = (i) => (i ? `-${i}` : ""); // of the ids of a model's data
const buttons = () => [...document.querySelectorAll("[data-model]")];

function keepBodies() {
  const place = document.getElementById("model");
  if (!place) return;
  const first = document.createDocumentFragment();
  first.append(...[...place.childNodes].map((node) => node.cloneNode(true)));
  bodies.push(first, ...[...document.querySelectorAll("template[data-body]")].map((t) => t.content));
  buttons().forEach((b, i) => b.addEventListener("click", () => { if (i !== chosen) { forgetChoices(); remember("model", b.textContent, "overview"); choose(i); } }));
}

async function choose(i) {
  if (i === chosen) return;
  chosen = i;
  outputs = null;
  Object.assign(REPORT, JSON.parse(document.getElementById("data" + ending(i)).textContent));
  for (const name of Object.keys(state)) if (name !== "models" && !(name in asked)) delete state[name];
  document.getElementById("model").replaceChildren(bodies[i].cloneNode(true));
  buttons().forEach((b, k) => b.setAttribute("aria-pressed", String(k === i)));
  await showModel();
}
