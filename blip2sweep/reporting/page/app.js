// Theme, the cell table, and the order in which things are drawn: text is there at once, figures follow.
const button = document.getElementById("theme");
function setTheme(name) {
  document.documentElement.dataset.theme = name;
  button.textContent = name === "dark" ? "Light" : "Dark";
  button.setAttribute("aria-pressed", String(name === "dark"));
}
setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
button.addEventListener("click", () => { setTheme(theme() === "dark" ? "light" : "dark"); drawAll(); });

// ---- cells
const STEP = 100, BASELINE = "baseline", FILTERS = ["parts", "method", "bits", "text"];
const allCells = () => ({ rows: rows(REPORT.cells), sort: Object.keys(REPORT.cells).find((n) => n === asked["cells.sort"]) || null, down: asked["cells.down"] === "true", filters: Object.fromEntries(FILTERS.map((c) => [c, asked["cells." + c] || ""])), shown: STEP, digits: digitsOf(REPORT.cells) });
let cells = null;
const filterName = (value) => (value === "" ? BASELINE : String(value)); // the baseline has no parts; "" stands for all
function cellTools() {
  const tools = document.getElementById("cell-tools");
  const filter = (name, value) => { cells.filters[name] = value; cells.shown = STEP; remember("cells." + name, value || null, "cells"); cellTable(); };
  for (const column of ["parts", "method", "bits"]) {
    const values = distinct(cells.rows.map((r) => r[column])).filter((v) => v !== null && v !== undefined).map(filterName);
    if (!values.includes(cells.filters[column])) cells.filters[column] = "";
    if (values.length > 1) tools.append(choice(column, [["", "all"], ...values.map((v) => [v, v])], (v) => filter(column, v), cells.filters[column]).label);
  }
  const search = element("input", { type: "search", id: "cell-search", placeholder: "recipe or key", value: cells.filters.text, oninput: () => filter("text", search.value.toLowerCase()) });
  document.getElementById("cell-more").addEventListener("click", () => { cells.shown += 10 * STEP; cellTable(); });
  tools.append(labelled("Search", search), element("button", { type: "button", "data-csv": "cells" }, "CSV"));
}

function sortBy(name) {
  cells.down = cells.sort === name && !cells.down;
  cells.sort = name;
  remember("cells.down", cells.down || null, "cells");
  remember("cells.sort", name, "cells");
  cellTable();
}

function cellTable() {
  const f = cells.filters, names = Object.keys(REPORT.cells);
  let kept = cells.rows.filter((r) => ["parts", "method", "bits"].every((c) => !f[c] || filterName(r[c]) === f[c]));
  if (f.text) kept = kept.filter((r) => `${r.recipe} ${r.key}`.toLowerCase().includes(f.text));
  if (cells.sort) {
    const value = (r) => (r[cells.sort] === null ? -Infinity : r[cells.sort]);
    kept = [...kept].sort((a, b) => (value(a) > value(b) ? 1 : value(a) < value(b) ? -1 : 0) * (cells.down ? -1 : 1));
  }
  const head = names.map((n) => element("th", { scope: "col", "aria-sort": cells.sort === n ? (cells.down ? "descending" : "ascending") : null },
    element("button", { type: "button", onclick: () => sortBy(n) }, n)));
  const body = kept.slice(0, cells.shown).map((r) => element("tr", {}, ...names.map((n) => cell(r[n], cells.digits[n]))));
  const place = document.getElementById("cell-table");
  place.replaceChildren(element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body)));
  const more = kept.length > cells.shown ? `, first ${cells.shown} shown` : "";
  document.getElementById("cell-count").textContent = `${kept.length} of ${cells.rows.length} cells${more}`;
  document.getElementById("cell-more").hidden = !more;
}

// ---- drawing
// A figure that cannot be drawn says so in its place, and the others are drawn all the same.
let broken = null; // why plotly could not be unpacked
async function draw(name) {
  try {
    note(name, "");
    if (broken && name !== "view3d") throw broken;
    await FIGURES[name]();
  } catch (error) {
    note(name, `This figure could not be drawn (${error.message}); its data is below.`);
  }
}

async function drawAll() {
  const first = (name) => Number(name === "models"); // what stands at the top of the page
  for (const name of Object.keys(FIGURES).sort((a, b) => first(b) - first(a))) {
    if (document.getElementById("plot-" + name)) await draw(name);
  }
  document.body.dataset.drawn = String(Number(document.body.dataset.drawn || 0) + 1);
}

async function outputsInView(entries) {
  if (!entries.some((e) => e.isIntersecting)) return;
  try {
    if (outputs) return;
    await browser();
    showPlace();
  } catch (error) {
    document.getElementById("browser").replaceChildren(element("p", { className: "missing" }, `The outputs could not be shown (${error.message}).`));
  }
}

// The data table below a figure is made when it is opened.
function dataBelow(name) {
  const place = document.getElementById("data-" + name);
  if (place) place.closest("details").addEventListener("toggle", () => place.childElementCount || place.append(...dataTable(dataOf(name))));
}

// For the printer: at the width of the paper, in one go, since no promise is waited for there.
function drawForPrint() {
  if (typeof Plotly !== "undefined" && !broken) for (const name of Object.keys(FIGURES)) if (document.getElementById("plot-" + name)) draw(name);
  outputsInView([{ isIntersecting: true }]);
}
addEventListener("beforeprint", drawForPrint);

// The page has not loaded before its figures are drawn: what prints it or takes its picture without a reader waits for that.
function holdLoad() {
  const held = element("iframe", { hidden: true, title: "drawing", ariaHidden: "true" });
  document.body.append(held);
  try {
    held.contentDocument.open();
  } catch {
    // a browser that gives a page from a file no such frame
  }
  return () => { try { held.contentDocument.close(); } catch { /* as above */ } held.remove(); };
}
const letLoad = holdLoad();

let watcher = null;
async function showModel() {
  cells = allCells();
  cellTools();
  cellTable();
  Object.keys(REPORT.figures).forEach(dataBelow);
  if (watcher) watcher.disconnect();
  if (!broken && typeof Plotly === "undefined") await unpackPlotly();
  await drawAll();
  watcher = new IntersectionObserver(outputsInView, { rootMargin: "600px" });
  watcher.observe(document.getElementById("captions"));
}

async function unpackPlotly() {
  try {
    document.head.append(element("script", { textContent: await unpack("packed-plotly") }));
  } catch (error) {
    broken = error;
  }
}

async function start() {
  recall();
  keepBodies();
  dataBelow("models");
  document.addEventListener("click", (e) => {
    const name = e.target.dataset && e.target.dataset.csv;
    if (name) save(name + ".csv", csv(dataOf(name)));
    if (e.target.matches("[data-copy]")) copy(e.target.previousElementSibling.textContent, e.target);
  });
  const model = buttons().findIndex((b) => b.textContent === asked.model);
  await (model > 0 ? choose(model) : showModel());
  showPlace();
  let waiting = null, wide = window.innerWidth;
  addEventListener("resize", () => {
    if (window.innerWidth === wide) return;
    wide = window.innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(drawAll, 200);
  });
}

// Two frames first: the browser paints the text before it unpacks 5 MB of script.
requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => start().finally(letLoad), 0)));
setTimeout(letLoad, 30000);
