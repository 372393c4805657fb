"use strict";
// Draws the plots, sorts and filters the tables. Texts from records enter as textContent, never as markup.

const drawn = JSON.parse(document.getElementById("drawn").textContent);
for (const set of Object.values(drawn.rows)) {
  set.rows = set.rows.map((row) => Object.fromEntries(set.columns.map((name, i) => [name, row[i]]).filter(([, value]) => value !== null)));
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Sorting: a head's button orders its table's rows, the best first, then the other way; what is missing stays last.

function sortKey(row, column) {
  const cell = row.cells[column];
  const number = cell.querySelector("data");
  if (number) return Number(number.value);
  return cell.querySelector(".missing") ? null : cell.textContent.trim().toLowerCase();
}

function compare(one, other) {
  return typeof one === "number" && typeof other === "number" ? one - other : String(one).localeCompare(String(other));
}

function sort(table, head) {
  const column = head.cellIndex;
  const first = head.dataset.better === "higher" ? "descending" : "ascending";
  const isFirst = head.ariaSort !== first;
  const sign = isFirst === (first === "ascending") ? 1 : -1;
  for (const each of head.parentElement.cells) each.ariaSort = "none";
  head.ariaSort = sign === 1 ? "ascending" : "descending";
  const rows = [...table.tBodies[0].rows].map((row) => ({ row, key: sortKey(row, column) }));
  rows.sort((a, b) => (a.key === null) - (b.key === null) || (a.key === null ? 0 : sign * compare(a.key, b.key)));
  table.tBodies[0].append(...rows.map((each) => each.row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const head of table.tHead.rows[0].cells) {
    head.firstElementChild.addEventListener("click", () => sort(table, head));
  }
}

// On a narrow screen the list of sections is closed until it is asked for.

const sections = document.querySelector("nav details");
sections.open = innerWidth > 640;
for (const link of sections.querySelectorAll("a")) {
  link.addEventListener("click", () => { sections.open = innerWidth > 640; });
}

// Filtering: a row stays if it holds every word.

for (const filter of document.querySelectorAll(".filter")) {
  const rows = [...filter.parentElement.querySelectorAll("table.sortable tbody tr")];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  filter.querySelector("input").addEventListener("input", (event) => {
    const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row, i) => { row.hidden = !words.every((word) => texts[i].includes(word)); });
    const left = rows.filter((row) => !row.hidden).length;
    filter.querySelector("[role=status]").textContent = words.length ? `${left} of ${rows.length} rows` : "";
  });
}

// The numbers behind a plot, laid out when they are asked for.

function numbers(rows) {
  const columns = [...new Set(rows.flatMap(Object.keys))];
  const table = element("table");
  const head = table.createTHead().insertRow();
  head.append(...columns.map((name) => element("th", name.replaceAll("_", " "), { scope: "col" })));
  const body = table.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const name of columns) {
      const value = row[name];
      const cell = line.insertCell();
      cell.append(typeof value === "number" ? element("data", String(value), { value }) : String(value ?? "–"));
    }
  }
  const scroll = element("div", undefined, { class: "scroll", tabindex: "0", role: "region", "aria-label": "The numbers" });
  scroll.append(table);
  return scroll;
}

for (const details of document.querySelectorAll("details[data-rows]")) {
  details.addEventListener("toggle", () => details.append(numbers(drawn.rows[details.dataset.rows].rows)), { once: true });
}

// Numbers on axes; `B` for bytes, because ticks are decimal.

const decimal = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];
const units = {
  s: [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]],
  bytes: [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "B"]],
  B: decimal.map(([size, prefix]) => [size, `${prefix}B`]),
  "FLOP/s": decimal.map(([size, prefix]) => [size, `${prefix}FLOP/s`]),
};

function scaled(value, unit) {
  if (value === null || value === undefined) return "";
  const scales = units[unit] ?? decimal;
  const [size, word] = value ? scales.find((scale) => Math.abs(value) >= scale[0]) ?? scales.at(-1) : [1, ""];
  return `${Number((value / size).toPrecision(4))} ${word}`.trim();
}

// toFixed rounds a tie up; the tables round it to the even digit. Only a multiple of 2^-(decimals + 1) can be a tie.

function fixed(value, decimals) {
  const shifted = Math.abs(value) * 10 ** decimals;
  const below = Math.floor(shifted);
  const isTie = Number.isInteger(value * 2 ** (decimals + 1)) && shifted - below === 0.5;
  return (isTie && below % 2 === 0 ? (Math.sign(value) * below) / 10 ** decimals : value).toFixed(decimals);
}

// Numbers in hovers: as the tables have them, of a rate with its unit. What is absent has no words.

function told(value, unit) {
  if (value === null || value === undefined) return "";
  if (unit === "fraction") return `${fixed(100 * value, 1)} %`;
  if (unit === "points") return `${value < 0 ? "" : "+"}${fixed(100 * value, 1)} points`;
  if (unit === "count" && Number.isInteger(value) && Math.abs(value) < 100000) return value.toLocaleString("en-US");
  const scales = units[unit] ?? decimal.slice(1);
  const [size, word] = scales.find((scale) => Math.abs(value) >= scale[0]) ?? scales.at(-1);
  const number = value / size;
  const decimals = number ? 2 - Math.floor(Math.log10(Math.abs(number))) : 0;
  return `${fixed(number, Math.max(decimals, 0))} ${word}`.trim();
}

vega.expressionFunction("scaled", scaled);
vega.expressionFunction("told", told);

// Plots. Colours are the page's own, so that light, dark and print need no second drawing.

const muted = { labelColor: "var(--muted)", titleColor: "var(--text)" };
const config = {
  background: null,
  customFormatTypes: true,
  font: "system-ui, sans-serif",
  view: { stroke: null },
  axis: { ...muted, gridColor: "var(--line)", domainColor: "var(--muted)", tickColor: "var(--muted)", labelFontSize: 11, labelFlush: false, labelSeparation: 6 },
};

function legend(width, spec) {
  const encodings = [spec, ...(spec.layer ?? [])].map((each) => each.encoding ?? {});
  const domain = encodings.flatMap((each) => each.color?.scale?.domain ?? []);
  const room = encodings.some((each) => each.y?.type === "nominal") ? 0.45 * width : width;  // It begins where names end.
  const entry = 40 + 6 * Math.max(6, ...domain.map((name) => name.length));  // The label's width, about, and its symbol.
  const columns = Math.max(1, Math.floor(room / entry));
  const layout = { bottom: { direction: "vertical", anchor: "start" } };
  return { ...muted, orient: "bottom", columns, layout, labelLimit: width - 90, symbolLimit: 60, symbolStrokeColor: "var(--muted)" };
}

const tip = document.body.appendChild(element("div", undefined, { id: "tip", hidden: "" }));

function showTip(_, event, item, value) {
  tip.hidden = value === null || value === undefined || value === "";
  if (tip.hidden) return;
  const list = element("dl");
  for (const [name, words] of Object.entries(value)) {
    if (words !== "undefined" && words !== "null" && words !== "") list.append(element("dt", name), element("dd", words));
  }
  tip.replaceChildren(list);
  const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
  const above = event.clientY + 14 + tip.offsetHeight > innerHeight;
  tip.style.left = `${Math.max(left, 8)}px`;
  tip.style.top = `${above ? Math.max(event.clientY - tip.offsetHeight - 14, 8) : event.clientY + 14}px`;
}

// Names of points stand where they cover no point, no line and no other name, which Vega-Lite cannot express; a name
// without such a place is left out.

function withNamesApart(spec) {
  const names = spec.marks.filter((mark) => mark.type === "text");
  const avoidMarks = spec.marks.filter((mark) => ["symbol", "line"].includes(mark.type)).map((mark) => mark.name);
  const anchor = ["top", "bottom", "right", "left", "top-right", "bottom-right", "top-left", "bottom-left"];
  const near = { anchor: [...anchor, ...anchor], offset: [...anchor.map(() => 7), ...anchor.map(() => 14)] };
  for (const mark of names) mark.transform = [{ type: "label", size: { signal: "[max(width, 1), max(height, 1)]" }, avoidMarks, ...near }];
  return spec;
}

async function draw(plot) {
  const { data, spec } = drawn.specs[plot.dataset.chart];
  const datasets = Object.fromEntries(data.map((name) => [name, drawn.rows[name].rows]));
  const autosize = { type: "fit-x", contains: "padding" };
  const description = plot.ariaLabel;  // Vega would put its own in this place.
  const whole = { width: "container", autosize, description, data: { name: data[0] }, ...spec, datasets };
  const fitted = { ...config, legend: legend(plot.clientWidth, spec) };
  const runtime = vega.parse(withNamesApart(vegaLite.compile(whole, { config: fitted }).spec));
  await new vega.View(runtime, { renderer: "svg", container: plot, hover: true, tooltip: showTip }).runAsync();
}

// A plot as a file of its own: what is seen, in the colours that it is seen in.

function save(plot) {
  const style = getComputedStyle(document.documentElement);
  const svg = plot.querySelector("svg").cloneNode(true);
  svg.style.background = "var(--page)";
  svg.prepend(document.createElementNS(svg.namespaceURI, "title"));
  svg.firstChild.textContent = plot.ariaLabel;
  const text = new XMLSerializer().serializeToString(svg);
  const coloured = text.replaceAll(/var\((--[\w-]+)\)/g, (_, name) => style.getPropertyValue(name).trim());
  const link = element("a", undefined, { download: `${plot.dataset.chart}.svg` });
  link.href = URL.createObjectURL(new Blob([coloured], { type: "image/svg+xml" }));
  link.click();
  URL.revokeObjectURL(link.href);
}

for (const button of document.querySelectorAll("button.save")) {
  button.addEventListener("click", () => save(button.closest("figure").querySelector(".plot")));
}

async function drawAll() {
  for (const plot of document.querySelectorAll(".plot")) {
    await draw(plot);
    await new Promise((resolve) => setTimeout(resolve));  // The page answers between two plots.
  }
  document.body.ariaBusy = "false";
}

drawAll();
