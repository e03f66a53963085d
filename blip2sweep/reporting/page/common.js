"use strict";
// Small helpers. Text from models and files reaches the page through textContent only, never as markup.
const REPORT = JSON.parse(document.getElementById("data").textContent);

// Okabe and Ito's colours, told apart by every kind of colour vision; markers and dashes say the same once more.
const COLOURS = {
  light: ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8A6100", "#3A8FB7", "#333333"],
  dark: ["#56B4E9", "#FF8C42", "#2CC79A", "#E79FC6", "#F0C23B", "#A6D8F5", "#E8E8EA"],
};
const MARKERS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x"];
const DASHES = ["solid", "dash", "dot", "dashdot"];

const theme = () => document.documentElement.dataset.theme || "light";
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colour = (i) => COLOURS[theme()][i % 7];
const narrow = () => window.innerWidth < 700;
const distinct = (list) => [...new Set(list)];
const natural = (list) => distinct(list).sort((a, b) => a.localeCompare(b, "en", { numeric: true })); // group8 before group32
const byNumber = (a, b) => a - b;

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((c) => c !== null && c !== undefined));
  return made;
}

// {column: [values]} -> [{column: value}]
function rows(columns) {
  const names = Object.keys(columns);
  return (columns[names[0]] || []).map((_, i) => Object.fromEntries(names.map((n) => [n, columns[n][i]])));
}

function number(value, digits = 3) {
  return value === null || value === undefined ? "" : Number(value).toFixed(digits).replace("-", "−");
}

const known = (value) => value !== null && value !== undefined;

function labelled(text, control) {
  return element("label", {}, text, control);
}

function choice(text, options, onchange, chosen) {
  const select = element("select", { onchange: () => onchange(select.value) });
  for (const [value, label] of options) select.append(element("option", { value, selected: value === chosen }, label));
  return { control: select, label: labelled(text, select) };
}

// Four digits in a column that has a fraction, none in one of whole numbers.
function digitsOf(columns) {
  return Object.fromEntries(Object.entries(columns).map(([n, list]) => [n, list.every((v) => typeof v !== "number" || Number.isInteger(v)) ? 0 : 4]));
}

// A table, and a button for the rows that are not yet in it.
function dataTable(columns, step = 300) {
  const names = Object.keys(columns), all = rows(columns), digits = digitsOf(columns), body = element("tbody", {});
  const head = element("tr", {}, ...names.map((n) => element("th", { scope: "col" }, n)));
  const further = element("button", { type: "button", className: "further", onclick: () => grow() });
  const grow = () => {
    const from = body.childElementCount;
    body.append(...all.slice(from, from + step).map((row) => element("tr", {}, ...names.map((n) => cell(row[n], digits[n])))));
    further.textContent = `Show more: ${body.childElementCount} of ${all.length} rows are shown`;
    further.hidden = body.childElementCount >= all.length;
  };
  grow();
  return [element("table", {}, element("thead", {}, head), body), further];
}

function cell(value, digits = 4) {
  if (typeof value === "number") return element("td", { className: "number" }, number(value, digits));
  return element("td", { dir: "auto" }, value === null || value === undefined ? "" : String(value));
}

// A text that a spreadsheet would compute gets an apostrophe before it, as in the CSV files beside the page.
function csv(columns) {
  const defused = (v) => (typeof v === "string" && /^'*[=+\-@\t\r]/.test(v) && Number.isNaN(Number(v)) ? `'${v}` : String(v));
  const quoted = (v) => (/[",\n\r]/.test(v) ? `"${v.replaceAll('"', '""')}"` : v);
  const quote = (v) => (v === null || v === undefined ? "" : quoted(defused(v)));
  const names = Object.keys(columns);
  return [names.join(","), ...rows(columns).map((r) => names.map((n) => quote(r[n])).join(","))].join("\n");
}

function save(name, text) {
  const link = element("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// Into the clipboard, and said on the button. Pages opened as files have no navigator.clipboard in some browsers.
async function copy(text, from) {
  const area = element("textarea", { value: text, readOnly: true, style: "position:fixed;opacity:0" });
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    document.body.append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
  }
  const label = from.dataset.label || (from.dataset.label = from.textContent);
  from.textContent = done ? "Copied" : "Not copied";
  setTimeout(() => { from.textContent = label; }, 1500);
}

// Base64 of gzip -> text, without fetch: the page makes no request, not even to itself.
async function unpack(id) {
  const packed = document.getElementById(id).textContent.trim();
  if (!packed) return null;
  if (typeof DecompressionStream === "undefined") throw new Error("this browser has no DecompressionStream; Chrome 80, Firefox 113 and Safari 16.4 have");
  const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}
