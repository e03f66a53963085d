// The caption browser: one sample, every part and width side by side. Unpacked when it comes into view.
let outputs = null;

async function browser() {
  const model = chosen, text = await unpack("packed-captions" + ending(model));
  if (!text || outputs || model !== chosen) return;
  outputs = JSON.parse(text);
  const place = document.getElementById("browser");
  place.replaceChildren();
  const order = { list: outputs.samples.map((_, i) => i), at: 0, all: "outputs" in asked ? asked.outputs === "all" : !outputs.cells.some((c) => c.main) };
  const base = outputs.cells.findIndex((c) => c.parts === "none");
  const body = element("div", { id: "sample" });
  const where = element("span", { id: "sample-at", "aria-live": "polite" });
  const show = () => { where.textContent = `${order.at + 1} of ${order.list.length}`; body.replaceChildren(...sampleView(order.list[order.at], base, order.all)); };
  const shown = () => { show(); remember("sample", outputs.samples[order.list[order.at]].id, "captions"); };
  const step = (by) => { order.at = (order.at + by + order.list.length) % order.list.length; shown(); };
  const worstFor = outputs.cells.findIndex((c, i) => c.key === asked.order && i !== base), first = worstFor >= 0 ? String(worstFor) : asked.order === "" ? "" : "all";
  const which = choice("Cells", [["", "whole parts"], ["all", "every cell"]], (value) => { order.all = value === "all"; show(); remember("outputs", value, "captions"); }, order.all ? "all" : "");
  const sort = choice("Order", [["", "as evaluated"], ["all", "worst drops first"], ...outputs.cells.map((c, i) => [String(i), `worst for ${c.recipe}`]).filter((_, i) => i !== base)], (value) => {
    order.list = sorted(value, base); order.at = 0; show();
    remember("sample", null, "captions");
    remember("order", outputs.cells[value] ? outputs.cells[value].key : value, "captions");
  }, first);
  const find = element("input", { type: "search", placeholder: "image id or words", id: "find", onkeydown: (e) => { if (e.key === "Enter") seek(); } });
  const seek = () => {
    const wanted = find.value.trim().toLowerCase();
    const hit = (i) => [outputs.samples[i].image, outputs.samples[i].id].some((id) => String(id).toLowerCase() === wanted) || outputs.texts[i].some((t) => t.toLowerCase().includes(wanted));
    const n = order.list.length, next = [...Array(n).keys()].map((k) => (order.at + 1 + k) % n).find((k) => hit(order.list[k]));
    if (next === undefined) where.textContent = "not found"; else { order.at = next; shown(); }
  };
  place.append(
    element("div", { className: "tools" }, which.label, sort.label, labelled("Find", find), element("button", { type: "button", onclick: seek }, "Find next"),
      element("button", { type: "button", id: "previous", onclick: () => step(-1) }, "← Previous"), element("button", { type: "button", id: "next", onclick: () => step(1) }, "Next →"), where),
    outputs.left_out ? element("p", { className: "missing" }, `${outputs.left_out} further cells are not in this page; their outputs are in samples.parquet.`) : "",
    body, ...lostQueries(base),
  );
  order.list = sorted(first, base);
  order.at = Math.max(0, order.list.findIndex((i) => String(outputs.samples[i].id) === asked.sample));
  show();
}

// The number of a cell's text among those of a sample; null of a cell of other samples, and of one that stopped before this one.
const placeOf = (cell, i) => (outputs.index[cell].length ? outputs.index[cell][i] : null);
const textOf = (cell, i) => (placeOf(cell, i) === null ? null : outputs.texts[i][placeOf(cell, i)]);
// The likelihood is that of the references: it differs between cells that say the same.
const scoreOf = (cell, i) => (outputs.own ? (outputs.own[cell].length ? outputs.own[cell][i] : null) : placeOf(cell, i) === null ? null : outputs.scores[i][placeOf(cell, i)]);
const lossOf = (cell, i, base) => { const [was, now] = [scoreOf(base, i), scoreOf(cell, i)]; return was === null || now === null ? null : outputs.sign * (was - now); };

// Samples by how much they lose: in one cell, or in the mean over all of them.
function sorted(value, base) {
  const all = outputs.samples.map((_, i) => i);
  if (value === "") return all;
  const cells = value === "all" ? outputs.cells.map((_, c) => c).filter((c) => c !== base) : [Number(value)];
  const loss = all.map((i) => cells.reduce((sum, c) => sum + (lossOf(c, i, base) || 0), 0));
  return all.sort((a, b) => loss[b] - loss[a]);
}

// The picture with what is known of it, and beside it what the cells say.
function sampleView(i, base, all) {
  const sample = outputs.samples[i], head = element("div", { className: "sample" });
  if (sample.thumb) head.append(element("img", { src: sample.thumb, alt: `image ${sample.image}` }));
  head.append(element("div", { className: "score" }, `image ${sample.image}`));
  if (sample.question) head.append(element("div", { dir: "auto", className: "question" }, sample.question));
  if (sample.choices) head.append(element("ol", { "aria-label": "Choices" }, ...sample.choices.map((c) => element("li", { dir: "auto", className: (sample.references || []).includes(c) ? "right" : "" }, c))));
  else if (sample.references) head.append(element("ul", { "aria-label": "References" }, ...sample.references.map((r) => element("li", { dir: "auto" }, r))));
  return [head, element("div", { className: "scroll", tabIndex: 0 }, grid(i, base, all))];
}

// Of a retrieval: the captions whose picture fell most in one cell, with the pictures found before and now.
function lostQueries(base) {
  if (!outputs.queries.some((list) => list.length)) return [];
  const cells = outputs.cells.map((c, k) => [String(k), c.recipe]).filter(([k]) => Number(k) !== base && (outputs.queries[k] || []).length);
  const body = element("div", { className: "scroll", id: "queries", tabIndex: 0 });
  const show = (k) => body.replaceChildren(queryTable(outputs.queries[Number(k)]));
  show(cells[0][0]);
  return [element("h3", {}, "Captions that lost their picture"), element("div", { className: "tools" }, choice("Cell", cells, show, cells[0][0]).label), body];
}

function queryTable(list) {
  const row = (q) => element("tr", {}, element("td", { dir: "auto" }, q.text), element("td", {}, picture(q.sample)), ...[q.before, q.now].map((found) => element("td", {}, ...found.map((i) => picture(i, i === q.sample)))));
  return element("table", {}, element("thead", {}, element("tr", {}, ...["caption", "its picture", "found at the baseline", "found by the cell"].map((h) => element("th", { scope: "col" }, h)))), element("tbody", {}, ...list.map(row)));
}

function picture(i, right) {
  const { image, thumb } = outputs.samples[i], label = `image ${image}${right ? ", the caption's own" : ""}`;
  return thumb ? element("img", { src: thumb, alt: label, title: label, className: right ? "found right" : "found" }) : element("span", { className: "score" }, label);
}

// Parts down, widths across. Cells of several widths or lines come in a list below each part.
function grid(i, base, all) {
  const cells = outputs.cells.map((c, k) => ({ ...c, k })).filter((c) => all || c.main || c.k === base);
  const parts = distinct(cells.filter((c) => c.k !== base).map((c) => c.parts));
  const widths = distinct(cells.filter((c) => c.width !== null).map((c) => c.width)).sort(byNumber).reverse();
  const headings = ["part", ...widths.map((w) => `${w} bits`)];
  const others = distinct(cells.filter((c) => c.width === null && c.k !== base).map((c) => (c.unquantized ? "not quantized" : "mixed")));
  if (others.length) headings.push(others.join(", "));
  const line = (label, own) => element("tr", {}, element("th", { scope: "row" }, label), ...own);
  const body = [line("baseline", [element("td", { colSpan: headings.length - 1 }, said(base, i, base))])];
  for (const part of parts) {
    const own = cells.filter((c) => c.parts === part);
    body.push(line(part, headings.slice(1).map((_, w) => element("td", {}, ...several(own.filter((c) => (w < widths.length ? c.width === widths[w] : c.width === null && c.k !== base)), i, base)))));
  }
  return element("table", { id: "outputs" }, element("thead", {}, element("tr", {}, ...headings.map((h) => element("th", { scope: "col" }, h)))), element("tbody", {}, ...body));
}

// What the cells of one place in the table say; where they are many, the first, and how many there are more.
const MOST_SAID = 24;
function several(own, i, base) {
  const shown = own.slice(0, MOST_SAID).map((c) => said(c.k, i, base, own.length > 1));
  return own.length > MOST_SAID ? [...shown, element("div", { className: "score" }, `and ${own.length - MOST_SAID} more cells`)] : shown;
}

function said(k, i, base, named) {
  const text = textOf(k, i), score = scoreOf(k, i), loss = lossOf(k, i, base);
  if (text === null) return element("div", { className: "score" }, outputs.index[k].length ? "stopped before this one" : "other samples");
  const worse = loss !== null && loss > 0.05;
  const shown = element("div", { className: `output${text.trim() ? "" : " empty"}${text === textOf(base, i) && k !== base ? " same" : ""}`, dir: "auto" });
  shown.textContent = text.trim() ? text : "(empty)";
  const name = named ? element("div", { className: "score" }, outputs.cells[k].recipe) : null;
  return element("div", { className: worse ? "worse" : "", title: outputs.cells[k].recipe }, ...(name ? [name] : []), shown, element("div", { className: "score" }, score === null ? "" : number(score, 2)));
}
