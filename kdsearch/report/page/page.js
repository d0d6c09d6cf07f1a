"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
// Okabe and Ito's colours, told apart by the colour-blind; symbols differ too, and from the eighth
// curve on another symbol comes with each colour.
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x", "star", "cross"];
const PAPER = 680; // the width of a page of A4 between its margins, in CSS pixels
let printing = false; // styles for print are not in force yet when a browser says it will print
const drawn = new Map(); // a chart's element to the function that draws it
const overlay = document.getElementById("overlay");

function layout(title, y, more = {}) {
  const style = getComputedStyle(document.documentElement);
  const text = printing ? "#000" : style.getPropertyValue("--text").trim();
  const line = printing ? "#bbb" : style.getPropertyValue("--line").trim();
  const axis = { gridcolor: line, zerolinecolor: text, linecolor: line, automargin: true };
  return {
    title: { text: title, font: { size: 14 }, x: 0, xref: "paper" },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: text, family: "system-ui, sans-serif", size: 12 },
    margin: { l: 50, r: 10, t: 36, b: 40 },
    legend: { orientation: "h", y: -0.18, font: { size: 11 }, ...more.legend },
    hovermode: "closest", ...(printing ? { width: PAPER } : {}),
    xaxis: { ...axis, ...more.x }, yaxis: { ...axis, title: { text: y }, ...more.y },
  };
}

function plot(element, traces, page) {
  Plotly.react(element, traces, page, { responsive: true, displaylogo: false, displayModeBar: false });
  element.dataset.drawn = "yes";
}

const symbolOf = (i) => SYMBOLS[(i + Math.floor(i / COLOURS.length)) % SYMBOLS.length];
const look = (i, dash = "solid") => ({
  mode: "lines+markers",
  line: { color: COLOURS[i % COLOURS.length], dash },
  marker: { color: COLOURS[i % COLOURS.length], symbol: symbolOf(i), size: 7 },
});

function drawDeciles(element) {
  const steps = [...Array(11).keys()].map((k) => `D${k}`);
  const traces = [];
  data.figures[element.dataset.figure].forEach((row, i) => {
    const colour = COLOURS[i % COLOURS.length];
    if (row.deciles && row.intervals.length) {
      traces.push({
        x: [...steps, ...[...steps].reverse()],
        y: [...row.intervals.map((p) => p[0]), ...row.intervals.map((p) => p[1]).reverse()],
        fill: "toself", fillcolor: colour + "22", line: { width: 0 }, mode: "lines",
        hoverinfo: "skip", showlegend: false, legendgroup: row.label,
      });
    }
    if (row.deciles) {
      traces.push({ ...look(i), x: steps, y: row.deciles, name: `${row.label} (n = ${row.n})`,
        legendgroup: row.label, hovertemplate: `${row.label}<br>%{x}: %{y:.1f} %<extra></extra>` });
    }
    if (row.paper && overlay.checked) {
      traces.push({ ...look(i, "dash"), mode: "lines", opacity: 0.7, x: steps, y: row.paper,
        name: `paper: ${row.label}`, hovertemplate: `paper, ${row.label}<br>%{x}: %{y:.1f} %<extra></extra>` });
    }
  });
  plot(element, traces, layout("Deciles over the test cases", "gain, %", { y: { zeroline: true } }));
}

// From the default to what was chosen. Both lines begin at 0: the two splits' scores may lie far apart.
function drawPath(element, { path }) {
  const signed = (gain) => `${gain > 0 ? "+" : ""}${gain.toFixed(path.digits)}`.replace("-", "−");
  const traces = ["validation, by which it chose", "test"].map((name, split) => {
    const scores = [path.default[split], ...path.steps.map((step) => step.scores[split])];
    const first = scores.find((score) => score !== null) ?? null;
    const ends = [scores[0], scores.at(-1)].map((score) => (score === null ? "–" : score.toFixed(path.digits)));
    const gain = (k) => (k ? path.steps[k - 1].gains[split] : null);
    const noise = (k) => (k && split ? path.steps[k - 1].noise : null);
    return {
      x: scores.map((_, k) => k + 0.08 * split), y: scores.map((score) => (score === null ? null : score - first)),
      name: `${name}: ${ends.join(" → ")}`, mode: "lines+markers+text",
      line: { color: COLOURS[split], shape: "hv", dash: split ? "dash" : "solid" },
      marker: { color: COLOURS[split], symbol: SYMBOLS[split], size: 8 },
      text: scores.map((_, k) => (k && !path.steps[k - 1].kept && gain(k) !== null ? signed(gain(k)) : "")),
      cliponaxis: false, textfont: { color: COLOURS[split] },
      error_y: { type: "data", array: scores.map((_, k) => noise(k) ?? 0), visible: path.steps.some((_, k) => noise(k + 1) !== null) },
      customdata: scores.map((score, k) => [k ? path.steps[k - 1].value : "default", score === null ? "" : score.toFixed(path.digits),
        gain(k) === null ? "" : `, ${signed(gain(k))}${noise(k) === null ? "" : ` ± ${noise(k).toFixed(path.digits)}`}`]),
      hovertemplate: `%{customdata[0]}<br>${split ? "test" : "validation"} %{customdata[1]}%{customdata[2]}<extra></extra>`,
    };
  });
  traces.forEach((trace, i) => { // apart from the other split's
    trace.textposition = trace.y.map((y, k) => (y > traces[1 - i].y[k] || (i === 0 && y === traces[1].y[k]) ? "top left" : "bottom left"));
  });
  const reach = traces.flatMap((trace) => trace.y.flatMap((y, k) => (y === null ? [] : [y - trace.error_y.array[k], y + trace.error_y.array[k]])));
  const [low, high] = [Math.min(...reach), Math.max(...reach)];
  const names = ["default", ...path.steps.map((step) => (step.kept ? `${step.value}<br>kept` : `<b>${step.value}</b>`))];
  plot(element, traces, layout("What each decision brought", "score − the default’s", {
    x: { tickvals: names.map((_, k) => k), ticktext: names, range: [-0.4, names.length - 0.6], zeroline: false },
    y: { range: [low - 0.15 * (high - low), high + 0.15 * (high - low)] } }));
}

function drawCurves(element, found, column, title, dtick = null) {
  const traces = [];
  found.choices.forEach((choice, i) => {
    const best = new Map(); // of a value, the best validation score at any value of the other one
    choice.trials.filter((t) => t[column] !== null && t[2] !== null).forEach((t) => {
      best.set(t[column], Math.max(best.get(t[column]) ?? -Infinity, t[2]));
    });
    const points = [...best].sort((a, b) => a[0] - b[0]);
    if (points.length > 1) {
      traces.push({ ...look(i), x: points.map((p) => p[0]), y: points.map((p) => p[1]), name: choice.name,
        hovertemplate: `${choice.name}<br>at %{x}: %{y:.4f}<extra></extra>` });
    }
  });
  single(element, traces, layout(title, "best validation score", { x: { type: "log", dtick } }));
}

function drawRuns(element, found, column, title, y) {
  const traces = found.runs.filter((run) => run.epochs.length).map((run, i) => ({
    ...look(i), x: run.epochs.map((e) => e[0]), y: run.epochs.map((e) => e[column]), name: run.name,
    hovertemplate: `${run.name}<br>epoch %{x}: %{y:.4f}<extra></extra>` }));
  single(element, traces, layout(title, y, { x: { tickformat: "d" } }));
}

function drawEntropy(element, found) {
  const points = (i, dash, cells, name) => ({
    ...look(i, dash), x: cells.map((c) => c[0]), y: cells.map((c) => c[1]), name,
    hovertemplate: `${name}<br>epoch %{x}: %{y:.4f} nats<extra></extra>` });
  const traces = found.measured.flatMap((run, i) => [
    { ...points(i, "solid", run.curve, `${run.name}, training`), mode: "lines" },
    points(i, "dot", run.epochs, `${run.name}, validation`),
  ]).filter((trace) => trace.x.length);
  single(element, traces, layout("Posterior entropy along training", "nats", {
    x: { title: { text: "epoch", standoff: 4 } }, legend: { yref: "container", y: 0, yanchor: "bottom" } }));
}

function drawMeasure(element, found) {
  const { measure, name } = element.dataset;
  const runs = found.measured.map((run) => ({ name: run.name, epochs: run.epochs.filter((e) => e[measure] !== null) }));
  drawRuns(element, { runs }, measure, `By epoch, on validation: ${name}`, name);
}

function single(element, traces, page) {
  element.hidden = traces.length === 0; // nothing was varied
  if (traces.length) plot(element, traces, page);
}

const CHARTS = {
  path: drawPath,
  temperature: (e, found) => drawCurves(e, found, 0, "Over the teacher’s temperature τ_t", Math.log10(2)),
  rate: (e, found) => drawCurves(e, found, 1, "Over the learning rate"),
  epochs: (e, found) => drawRuns(e, found, 2, "Best trial of each choice, by epoch", "validation score"),
  entropy: drawEntropy,
  measure: drawMeasure,
  loss: (e, found) => drawRuns(e, found, 1, "Its training loss, by epoch", "loss minimised"),
};

function drawCase(details) {
  const found = data.cases[details.dataset.case];
  details.querySelectorAll("[data-chart]").forEach((element) => {
    const draw = () => CHARTS[element.dataset.chart](element, found);
    if (!drawn.has(element)) { drawn.set(element, draw); draw(); }
  });
}

const redraw = () => drawn.forEach((draw) => draw());
document.querySelectorAll(".decile").forEach((element) => {
  drawn.set(element, () => drawDeciles(element));
});
redraw();
overlay?.addEventListener("change", () => { // it is not there where no search has figures
  document.querySelectorAll("tr.paper").forEach((row) => { row.hidden = !overlay.checked; });
  document.querySelectorAll(".decile").forEach(drawDeciles);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

const cases = [...document.querySelectorAll("details[data-case]")];
cases.forEach((details) => details.addEventListener("toggle", () => { if (details.open) drawCase(details); }));
function openTarget() {
  const target = document.getElementById(location.hash.slice(1));
  if (target && target.matches("details")) target.open = true;
}
addEventListener("hashchange", openTarget);
openTarget();
if (cases.length === 1) cases[0].open = true;
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((details) => { details.open = true; });
  cases.forEach(drawCase);
  printing = true;
  redraw();
});
addEventListener("afterprint", () => { printing = false; redraw(); });

const table = document.getElementById("case-table");
const rows = [...table.tBodies[0].rows];
const value = (row, k) => {
  const text = row.cells[k].textContent.trim();
  const number = parseFloat(text.replaceAll(",", "").replace("−", "-"));
  return text === "–" ? null : Number.isNaN(number) || k < 3 ? text : number;
};
[...table.tHead.rows[0].cells].forEach((header, k) => header.firstElementChild.addEventListener("click", () => {
  const down = header.getAttribute("aria-sort") === "ascending";
  [...table.tHead.rows[0].cells].forEach((other) => other.setAttribute("aria-sort", "none"));
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  const order = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b)) * (down ? -1 : 1);
  rows.sort((one, other) => { // what has no value comes last, either way
    const [a, b] = [value(one, k), value(other, k)];
    return a === null || b === null ? (a === null) - (b === null) : order(a, b);
  });
  table.tBodies[0].append(...rows);
}));

const filter = document.getElementById("filter");
function narrow() {
  const words = filter.value.toLowerCase().split(/\s+/);
  let shown = 0;
  rows.forEach((row) => {
    const fits = words.every((word) => row.textContent.toLowerCase().includes(word));
    row.hidden = !fits;
    const id = row.querySelector("a").hash.slice(1);
    document.getElementById(id).hidden = !fits;
    shown += fits;
  });
  document.getElementById("shown").textContent = `${shown} of ${rows.length}`;
}
filter.addEventListener("input", narrow);
narrow();
