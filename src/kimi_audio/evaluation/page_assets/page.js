"use strict";
// Shows the data in the page: table, paired differences, answers, speed. All text goes in as text, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const PER_PAGE = 25;
const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"]; // told apart by colour-blind eyes
const byId = (id) => document.getElementById(id);
const chosen = (id) => Number(byId(id).value);

/** An element: properties (`class`, `onclick`, `style`, attributes) and children; null children are left out. */
function h(tag, properties = {}, ...children) {
  const svg = ["svg", "path", "line"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node[name] = value;
    else if (name === "style") for (const [key, rule] of Object.entries(value)) node.style.setProperty(key, rule);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

function fill(select, entries, value) {
  select.replaceChildren(...entries.map(([key, text]) => h("option", { value: key }, text)));
  if (value !== undefined) select.value = value;
}

const several = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

const percent = (value, low, high) => `${(100 * (value - low)) / (high - low || 1)}%`;

/** A point with its interval on the scale from `low` to `high`; `mark` draws a line there. */
function whisker(cell, low, high, mark = null) {
  return h("span", { class: "whisker", "aria-hidden": "true" },
    mark === null ? null : h("u", { style: { left: percent(mark, low, high) } }),
    h("i", { style: { left: percent(cell.low, low, high), width: percent(cell.high - cell.low + low, low, high) } }),
    h("b", { style: { left: percent(cell.value, low, high) } }));
}

// Figures ------------------------------------------------------------------------------------------------------------

function showTable() {
  const body = h("tbody");
  let kind = null;
  data.benchmarks.forEach((benchmark, row) => {
    if (benchmark.kind !== kind) {
      kind = benchmark.kind;
      body.append(h("tr", { class: "kind" }, h("th", { colspan: data.models.length + 1, scope: "rowgroup" }, kind)));
    }
    const known = benchmark.cells.filter((cell) => cell && cell.value !== null);
    const low = Math.min(...known.map((cell) => cell.low)), high = Math.max(...known.map((cell) => cell.high));
    const better = benchmark.lower ? "lower is better" : "higher is better";
    body.append(h("tr", {},
      h("th", { scope: "row" }, benchmark.title,
        h("small", {}, `${benchmark.metric.replaceAll("_", " ")} `, h("span", { title: better, "aria-label": better }, benchmark.arrow))),
      benchmark.cells.map((cell, model) => h("td", {}, cell ? figure(cell, row, model, low, high) : h("span", { class: "quiet", title: "not run" }, "–")))));
  });
  const head = data.models.map((model) => h("th", { scope: "col" }, model.name, h("small", {}, model.fingerprint)));
  byId("table").replaceChildren(h("table", { class: "even", style: { "--models": data.models.length } }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Benchmark"), head)), body));
}

function figure(cell, row, model, low, high) {
  const recipe = cell.recipe;
  const hint = [`${cell.items} items`, recipe.instruction && `“${recipe.instruction}”`, `normaliser ${recipe.normaliser}`,
    recipe.judge && `judge ${recipe.judge}`, `seed ${recipe.seed}`, recipe.fingerprint].filter(Boolean).join(" · ");
  return [
    h("button", { class: "figure", title: hint, onclick: () => showRecipe(row, model) },
      h("b", {}, cell.figure), h("span", { class: "interval" }, cell.interval), " ",
      cell.best ? h("span", { class: "best-mark" }, "Best") : null,
      cell.value === null ? null : whisker(cell, low, high)),
    h("div", { class: "troubles" },
      cell.failed ? h("button", { class: "failed", onclick: () => browse(row, model, "failed") }, `⚠ ${cell.failed} of ${cell.items} failed`) : null,
      cell.unanswered ? h("span", { class: "failed" }, `⚠ ${cell.unanswered} not asked yet`) : null,
      cell.faults.length ? h("button", { class: "failed", onclick: () => showRecipe(row, model) }, `⚠ ${several(cell.faults.length, "row")} unusable`) : null),
  ];
}

function showRecipe(row, model) {
  const benchmark = data.benchmarks[row], cell = benchmark.cells[model], dialog = byId("recipe");
  dialog.replaceChildren(h("div", {},
    h("h2", { id: "recipe-title", tabindex: -1, autofocus: true }, `${data.models[model].name} on ${benchmark.title}`),
    h("p", { class: "quiet" }, `${cell.figure} (95 % interval ${cell.interval}), ${cell.items} items, ${cell.failed} failed`),
    h("dl", {}, Object.entries(cell.recipe).map(([name, value]) => [h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, plain(value) || "none")])),
    cell.faults.length ? h("h3", { style: { "margin-top": "1rem" } }, `${several(cell.faults.length, "row")} of the manifest could not be used`) : null,
    cell.faults.length ? h("ul", { class: "fault" }, cell.faults.slice(0, 50).map((fault) => h("li", {}, fault))) : null,
    h("div", { class: "buttons" },
      h("button", { class: "plain", onclick: () => { dialog.close(); browse(row, model, "all"); } }, "Browse the answers"),
      h("button", { class: "plain", onclick: () => dialog.close() }, "Close"))));
  dialog.showModal();
}

/** A value of a recipe in words: `{a: 1}` is "a 1". */
function plain(value) {
  if (value === null || value === "") return "";
  if (Array.isArray(value)) return value.map(plain).join(", ");
  if (typeof value === "object") return Object.entries(value).map(([name, inner]) => `${name} ${plain(inner)}`).join("\n");
  return value === true ? "yes" : value === false ? "no" : String(value);
}

// Differences --------------------------------------------------------------------------------------------------------

function showPairs() {
  const [a, b] = [chosen("first"), chosen("second")];
  const rows = data.benchmarks.map((benchmark) => {
    const pair = benchmark.pairs.find((each) => each.first === a && each.second === b);
    if (!pair || pair.value === null) return null;
    const reach = Math.max(Math.abs(pair.low), Math.abs(pair.high)) * 1.1 || 1;
    const winner = !pair.certain ? null : pair.value < 0 === benchmark.lower ? a : b;
    return h("tr", {},
      h("th", { scope: "row" }, benchmark.title, h("small", {}, `${benchmark.arrow} ${pair.items} items`)),
      h("td", {}, benchmark.cells[a].figure), h("td", {}, benchmark.cells[b].figure),
      h("td", {}, pair.text, whisker(pair, -reach, reach, 0), pair.unlike ? h("small", {}, `⚠ not the same ${pair.unlike.replaceAll("_", " ")}`) : null),
      h("td", {}, pair.p),
      h("td", {}, winner === null ? h("span", { class: "quiet" }, "no difference shown") : h("span", { class: "best-mark" }, `${data.models[winner].name} better`)));
  }).filter(Boolean);
  const names = ["Benchmark", data.models[a].name, data.models[b].name, "Difference (95 %)", "p", "Verdict"];
  byId("pairs").replaceChildren(rows.length
    ? h("table", {}, h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, rows))
    : h("p", { class: "quiet", style: { padding: "0 1rem" } }, a === b ? "Choose two different models." : "No benchmark that both have answered."));
}

// Answers ------------------------------------------------------------------------------------------------------------

let page = 0;
let pair = null; // a chosen cell of the confusion matrix: [expected, predicted]

function browse(row, model, show) {
  byId("benchmark").value = row;
  fillModels(model);
  byId("show").value = show;
  byId("search").value = "";
  pair = null;
  refresh();
  byId("answers").scrollIntoView();
}

function fillModels(wanted) {
  const cells = data.benchmarks[chosen("benchmark")].cells;
  const entries = data.models.map((model, number) => [number, model.name]).filter(([number]) => cells[number]);
  fill(byId("model"), entries, entries.some(([number]) => number === wanted) ? wanted : entries[0][0]);
}

const predicted = (row) => row.predicted ?? "(none)";

function wantedRows(cell) {
  const show = byId("show").value, order = byId("order").value;
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = cell.rows.filter((row) => {
    if (show === "failed" && row.error === null) return false;
    if (show === "wrong" && row.error === null && (row.right || !row.counted)) return false;
    if (pair && (String(row.expected) !== pair[0] || String(predicted(row)) !== pair[1])) return false;
    row.searched ??= [row.id, row.instruction, row.text, row.reference, row.hypothesis, row.expected, row.predicted, row.reason, row.error].join("\n").toLowerCase();
    return words.every((word) => row.searched.includes(word));
  });
  if (order === "slowest") rows.sort((one, other) => other.took - one.took);
  if (order === "longest") rows.sort((one, other) => other.seconds - one.seconds);
  return rows;
}

function refresh() {
  page = 0;
  const cell = data.benchmarks[chosen("benchmark")].cells[chosen("model")];
  byId("legend").hidden = !cell.rows.some((row) => row.alignment);
  showConfusion(cell.confusion);
  showItems();
}

function showItems() {
  const cell = data.benchmarks[chosen("benchmark")].cells[chosen("model")];
  const rows = wantedRows(cell), pages = Math.max(1, Math.ceil(rows.length / PER_PAGE));
  byId("items").replaceChildren(...rows.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map(card));
  byId("count").textContent = rows.length === cell.rows.length ? several(rows.length, "answer") : `${rows.length} of ${cell.rows.length} answers`;
  for (const pager of document.querySelectorAll(".pager")) {
    const [back, place, on] = pager.children;
    back.disabled = page === 0;
    on.disabled = page + 1 >= pages;
    place.textContent = `page ${page + 1} of ${pages}`;
  }
}

function turn(by) {
  page += by;
  showItems();
  if (byId("items").getBoundingClientRect().top < 0) byId("count").scrollIntoView();
}

function card(row) {
  const entry = (name, value) => (value === undefined || value === null || value === "" ? [] : [h("dt", {}, name), h("dd", {}, plain(value))]);
  const verdict = row.error !== null ? "wrong" : row.right === null ? "" : row.right ? "right" : "wrong";
  const labels = row.expected === undefined ? [] : [entry("Expected", row.expected), entry("Understood as", predicted(row))];
  const compared = row.alignment ? [] : [entry("Reference", row.reference), row.hypothesis === row.text ? [] : entry("Compared as", row.hypothesis)];
  return h("li", {},
    h("div", { class: "item-head" },
      h("span", { class: `score ${verdict}` }, row.error === null ? row.score : row.counted ? "failed" : "failed, not counted"), h("code", {}, row.id),
      row.seconds ? h("span", {}, `${row.seconds.toFixed(1)} s of sound`) : null, h("span", {}, `answered in ${row.took.toFixed(2)} s`),
      row.first === null ? null : h("span", {}, `first sound after ${row.first.toFixed(2)} s`)),
    row.sounds.length || row.audio !== null ? h("div", { class: "sounds" },
      row.sounds.map((number) => player("Heard", number)), row.audio === null ? null : player("Spoken answer", row.audio)) : null,
    row.alignment ? aligned(row.alignment) : null,
    h("dl", {},
      entry("Instruction", row.instruction), compared, labels, entry("Answer", row.text), entry("Judge’s reason", row.reason),
      Object.entries(row.more).map(([name, value]) => entry(name.replaceAll("_", " "), value)),
      row.error === null ? [] : [h("dt", {}, "Error"), h("dd", { class: "fault" }, row.error)]));
}

function player(what, number) {
  const { name, url, fault } = data.sounds[number];
  const caption = h("figcaption", {}, `${what}: ${name}`);
  return h("figure", {}, caption, fault ? h("span", { class: "fault" }, `⚠ ${fault}`) : h("audio", { controls: true, preload: "none", src: url, "aria-label": `${what}: ${name}` }));
}

function aligned(pieces) {
  const said = { substitute: "instead of", delete: "left out", insert: "put in" };
  return h("div", { class: "aligned" }, pieces.map(([kind, reference, hypothesis]) =>
    h("span", { class: `piece ${kind}`, title: said[kind] ?? null },
      h("span", { class: "ref" }, reference || "\u00a0"), h("span", { class: "hyp" }, hypothesis || "\u00a0"))));
}

function showConfusion(confusion) {
  const place = byId("confusion");
  if (!confusion) return place.replaceChildren();
  const { rows, columns, counts } = confusion, dense = columns.length > 16;
  const choose = (row, column) => () => { pair = [rows[row], columns[column]]; page = 0; showChip(); showItems(); };
  const cells = (row) => columns.map((column, number) => {
    const count = counts[row][number], share = count / counts[row].reduce((sum, each) => sum + each, 0);
    const label = `${rows[row]} understood as ${column}: ${count}`;
    const looks = `${column === rows[row] ? "diagonal" : ""} ${share > 0.8 ? "strong" : ""}`;
    return h("td", {}, h("button", { class: looks, style: { "--share": share }, title: label, "aria-label": label, tabindex: row + number ? -1 : 0, onclick: choose(row, number) }, count || ""));
  });
  const table = h("table", { style: { "--size": dense ? "0.85rem" : "2.4rem" }, onkeydown: walk },
    h("thead", {}, h("tr", {}, h("th", {}), columns.map((column) => h("th", { scope: "col", title: column }, h("span", {}, column))))),
    h("tbody", {}, rows.map((row, number) => h("tr", {}, h("th", { scope: "row", title: row }, row), cells(number)))));
  const often = counts.flatMap((line, row) => line.map((count, column) => ({ count, row, column })))
    .filter(({ count, row, column }) => count && rows[row] !== columns[column]).sort((one, other) => other.count - one.count).slice(0, 8);
  place.replaceChildren(
    h("div", { class: "confusions" },
      h("div", {}, h("h3", {}, "Confusions"), h("p", { class: "quiet" }, "A row per right label, a column per label understood. Choose a cell for its answers; arrow keys move."),
        h("div", { class: `matrix ${dense ? "dense" : ""}` }, table)),
      h("div", {}, h("h3", {}, "Most often"), often.length
        ? h("ul", { class: "often" }, often.map(({ count, row, column }) => h("li", {}, h("button", { onclick: choose(row, column) }, `${count} × ${rows[row]} → ${columns[column]}`))))
        : h("p", { class: "quiet" }, "No confusions."))),
    h("div", { id: "chip" }));
  showChip();
}

function showChip() {
  const clear = () => { pair = null; page = 0; showChip(); showItems(); };
  byId("chip").replaceChildren(...(pair ? [h("span", { class: "chip" }, `${pair[0]} → ${pair[1]}`, h("button", { onclick: clear, "aria-label": "Show all labels" }, "✕"))] : []));
}

/** Arrow keys move through the matrix. */
function walk(event) {
  const [down, right] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key] ?? [0, 0];
  const line = event.target.closest("tr");
  const next = event.target.closest("table").rows[line.rowIndex + down]?.cells[event.target.closest("td").cellIndex + right]?.querySelector("button");
  if (!next || !(down || right)) return;
  event.preventDefault();
  event.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

// Speed --------------------------------------------------------------------------------------------------------------

const short = (value) => (value >= 100 ? value.toFixed(0) : value >= 1 ? value.toFixed(1) : value.toPrecision(2));

function showSpeed() {
  const plots = data.speed.filter((plot) => plot.measure === byId("measure").value);
  if (!plots.some((plot) => plot.benchmark === byId("where").value)) byId("where").value = plots[0]?.benchmark;
  const plot = plots.find((each) => each.benchmark === byId("where").value);
  if (!plot) return byId("plot").replaceChildren(h("p", { class: "quiet" }, "No times were kept."));
  const at = (value) => (100 * (Math.log10(value) - plot.low)) / (plot.high - plot.low);
  const decades = Array.from({ length: 14 }, (_, power) => 10 ** (power - 7));
  const inside = (ticks) => ticks.filter((tick) => at(tick) > 1 && at(tick) < 99);
  const whole = inside(decades), ticks = whole.length > 2 ? whole : inside(decades.flatMap((tick) => [tick, 2 * tick, 5 * tick]));
  const line = (x, kind) => h("line", { x1: x, x2: x, y1: 0, y2: 64, class: kind });
  const unit = plot.measure.startsWith("Seconds") ? " s" : "";
  const ridges = plot.models.map(({ model, counts, items, median, slow }) => {
    const top = Math.max(...counts), step = 100 / counts.length;
    const outline = counts.map((count, bin) => `V${64 - (60 * count) / top}H${(bin + 1) * step}`).join("");
    return h("div", { class: "ridge", style: { "--colour": COLOURS[model % COLOURS.length] } },
      h("p", {}, h("b", {}, data.models[model].name), h("span", { class: "quiet" }, `median ${short(median)}${unit} · 95 % within ${short(slow)}${unit} · ${items} answers`)),
      h("svg", { viewBox: "0 0 100 64", preserveAspectRatio: "none", role: "img", "aria-label": `Distribution of ${plot.measure.toLowerCase()} of ${data.models[model].name}` },
        ticks.map((tick) => line(at(tick), tick === 1 && !unit ? "one" : "grid")), h("path", { d: `M0 64${outline}V64Z` }), line(at(median), "median")));
  });
  const axis = h("div", { class: "axis", "aria-hidden": "true" }, ticks.map((tick) => h("span", { style: { left: `${at(tick)}%` } }, `${Number(tick.toPrecision(1))}${unit}`)));
  byId("plot").replaceChildren(...ridges, axis);
}

// Start --------------------------------------------------------------------------------------------------------------

const answers = data.benchmarks.reduce((sum, each) => sum + each.cells.reduce((inner, cell) => inner + (cell?.items ?? 0), 0), 0);
byId("summary").textContent = [several(data.models.length, "model"), several(data.benchmarks.length, "benchmark"), several(answers, "answer")].join(" · ");
const models = data.models.map((model, number) => [number, model.name]);
if (data.benchmarks.length) {
  showTable();
  fill(byId("first"), models, 0);
  fill(byId("second"), models, Math.min(1, models.length - 1));
  fill(byId("benchmark"), data.benchmarks.map((benchmark, number) => [number, benchmark.title]), 0);
  fillModels(0);
  fill(byId("measure"), [...new Set(data.speed.map((plot) => plot.measure))].map((name) => [name, name]));
  fill(byId("where"), [...new Set(data.speed.map((plot) => plot.benchmark))].map((name) => [name, name]));
  for (const id of ["first", "second"]) byId(id).onchange = showPairs;
  byId("benchmark").onchange = () => { pair = null; fillModels(chosen("model")); refresh(); };
  byId("model").onchange = () => { pair = null; refresh(); };
  for (const id of ["show", "order"]) byId(id).onchange = () => { page = 0; showItems(); };
  byId("search").oninput = () => { page = 0; showItems(); };
  for (const pager of document.querySelectorAll(".pager")) {
    pager.firstElementChild.onclick = () => turn(-1);
    pager.lastElementChild.onclick = () => turn(1);
  }
  for (const id of ["measure", "where"]) byId(id).onchange = showSpeed;
  showPairs();
  refresh();
  showSpeed();
}
