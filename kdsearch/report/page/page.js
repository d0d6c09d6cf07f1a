"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
// Okabe and Ito's colours, told apart by the colour-blind; symbols differ too, and from the eighth
// curve on another symbol comes with each colour.
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x", "star", "cross"];
const PAPER = 680; // the width of a page of A4 between its margins, in CSS pixels
// On a dark ground the dark ones of them are too weak.
const LIGHTER = { "#0072B2": "#4DA6E0", "#D55E00": "#F08A4B", "#009E73": "#35C79B", "#AA4499": "#DD88CC", "#C2185B": "#FF7AA8", "#8C6D1F": "#C9A84A" };
const dark = matchMedia("(prefers-color-scheme: dark)");
const onGround = (colour) => (dark.matches && !printing && LIGHTER[colour]) || colour;
let printing = false; // styles for print are not in force yet when a browser says it will print
const drawn = new Map(); // a chart's element to the function that draws it
const underSeed = data.seed === null ? "" : `, under seed ${data.seed}`; // tables have means
const studentsUnder = underSeed.replace("under", "students under"); // a teacher has a seed of its own
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
    legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", font: { size: 11 }, ...more.legend },
    hovermode: "closest", ...(printing ? { width: PAPER } : {}),
    xaxis: { ...axis, ...more.x }, yaxis: { ...axis, title: { text: y }, ...more.y },
  };
}

function plot(element, traces, page) {
  Plotly.react(element, traces, page, { responsive: true, displaylogo: false, displayModeBar: false });
  element.dataset.drawn = "yes";
}

const symbolOf = (i) => SYMBOLS[(i + Math.floor(i / COLOURS.length)) % SYMBOLS.length];
const colourOf = (i) => onGround(COLOURS[i % COLOURS.length]);
const look = (i, dash = "solid") => ({
  mode: "lines+markers",
  line: { color: colourOf(i), dash },
  marker: { color: colourOf(i), symbol: symbolOf(i), size: 7 },
});

const shown = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;"); // Plotly reads tags
const signed = (number) => (number < 0 ? "−" : "+") + Math.abs(number).toFixed(1);
const minus = (number) => number.toFixed(1).replace("-", "−");

function drawGains(element) {
  const figure = data.figures[element.dataset.figure];
  (figure.many ? drawDeciles : drawPoints)(element, figure);
}

function gainInWords(figure, row, [k, gain, noise, points, identical]) {
  const more = noise === null ? "" : ` ± ${noise.toFixed(1)}`;
  if (identical) return `${shown(figure.cases[k][1])}<br>${shown(row.label)}: 0.0 %, identical`;
  return `${shown(figure.cases[k][1])}<br>${shown(row.label)}: ${minus(gain)} %${more}, ${signed(points)} points`;
}

// Few cases: under the name of each comparison a lane for each case, so that none hides another.
function drawPoints(element, figure) {
  const lane = 18, page = layout("", ""), wide = printing ? PAPER : element.clientWidth;
  const most = wide < 560 ? 16 : 32;
  const half = most / 2; // names often differ at their ends
  const names = figure.cases.map(([name]) => (name.length > most ? `${name.slice(0, half)}…${name.slice(1 - half)}` : name));
  const paper = overlay?.checked && figure.rows.some((row) => row.paper) ? ["paper"] : [];
  const left = 6.5 * Math.max(...[...names, ...paper].map((name) => name.length)) + 12;
  const traces = figure.cases.map(([name, , i]) => ({
    x: [], y: [], text: [], name, mode: "markers", hoverinfo: "text",
    marker: { ...look(i).marker, size: 9 },
    error_x: { type: "data", array: [], color: colourOf(i), thickness: 1.5, width: 3 },
  }));
  const ticks = [], heads = [], shapes = [];
  let y = 0;
  figure.rows.forEach((row) => {
    if (!row.gains.length) return;
    const [over, lines] = heading(row.label, wide);
    heads.push({
      text: over, x: 0, xref: "paper", xanchor: "left", xshift: 4 - left, y: (y += lines + 0.2),
      yshift: ((lines - 1) * lane) / 2, showarrow: false, align: "left",
    });
    const top = y + 0.5, there = row.gains.map(([k]) => k);
    names.forEach((name, k) => {
      const gain = row.gains[there.indexOf(k)], trace = traces[k];
      if (!gain) return;
      ticks.push([(y += 1), shown(name)]);
      trace.x.push(gain[1]);
      trace.y.push(y);
      trace.text.push(gainInWords(figure, row, gain));
      trace.error_x.array.push(gain[2] ?? 0);
    });
    shapes.push({ type: "line", layer: "below", x0: row.median, x1: row.median, y0: top, y1: y + 0.5,
      line: { color: page.font.color, width: 2, dash: "dot" } });
    if (paper.length && row.paper) {
      ticks.push([(y += 1), "paper"]);
      traces.push(...papersLane(row, y, page.font.color));
    }
    y += 0.3;
  });
  page.showlegend = false;
  page.shapes = shapes;
  page.annotations = heads;
  page.height = lane * (y + 0.5) + 60;
  page.margin = { l: left, r: 14, t: 4, b: 56 };
  const papers = paper.length ? figure.rows.flatMap((row) => row.paper ?? []) : [];
  page.xaxis = { ...page.xaxis, title: { text: figure.axis, standoff: 6 }, zeroline: true,
    range: rangeOf(figure.rows.flatMap((row) => row.gains), papers) };
  page.yaxis = { ...page.yaxis, automargin: false, zeroline: false, range: [y + 0.5, 0.4], fixedrange: true,
    tickvals: ticks.map(([at]) => at), ticktext: ticks.map(([, name]) => name) };
  plot(element, traces, page);
}

// A comparison's name, on two lines where one is too short, and the number of lines.
function heading(label, wide) {
  const at = label.lastIndexOf(" over ");
  if (label.length * 7 < wide || at < 0) return [`<b>${shown(label)}</b>`, 1];
  return [`<b>${shown(label.slice(0, at))}<br>${shown(label.slice(at + 1))}</b>`, 2];
}

// Of the axis: 0, and all gains with their noise.
function rangeOf(gains, others) {
  const values = [0, ...others, ...gains.flatMap(([, gain, noise]) => [gain - noise, gain + noise])];
  const low = Math.min(...values), high = Math.max(...values), pad = (high - low || 2) / 25;
  return [low - pad, high + pad];
}

// The paper's deciles as a bar from D1 to D9, thin from D0 to D10, with a mark at D5.
function papersLane(row, y, color) {
  const [low, first, median, ninth, high] = [0, 1, 5, 9, 10].map((k) => row.paper[k]);
  const text = `paper, ${shown(row.label)}<br>median ${minus(median)} %, ${minus(low)} to ${minus(high)} %`;
  const bar = (x, width) => ({ x, y: [y, y], mode: "lines", line: { color, width }, opacity: 0.5, hoverinfo: "skip" });
  return [bar([low, high], 1), bar([first, ninth], 6),
    { x: [median], y: [y], mode: "markers", marker: { color, symbol: "line-ns-open", size: 10 }, hoverinfo: "text", text: [text] }];
}

// Many cases: their gains in ascending order, each at its share of the way from D0 to D10.
function drawDeciles(element, figure) {
  const deciles = [...Array(11).keys()], bands = [], traces = [], page = layout("", figure.axis);
  const rows = figure.rows.filter((row) => row.n);
  rows.forEach((row, i) => {
    const colour = colourOf(i), there = { legendgroup: row.label };
    if (row.intervals.length) {
      bands.push({ ...there, x: [...deciles, ...deciles.toReversed()],
        y: [...row.intervals.map((p) => p[0]), ...row.intervals.map((p) => p[1]).reverse()],
        fill: "toself", fillcolor: colour + "22", line: { width: 0 }, mode: "lines",
        hoverinfo: "skip", showlegend: false });
    }
    const over = rows.length - i; // the first is drawn widest, so that no other covers it
    traces.push({ ...there, ...look(i), mode: row.line ? "lines+markers" : "markers",
      line: { color: colour, width: 1 + over }, marker: { ...look(i).marker, size: 4 + over },
      x: row.gains.map((_, k) => (row.n > 1 ? (10 * k) / (row.n - 1) : 5)), y: row.gains.map((gain) => gain[1]),
      name: `${shown(row.label)} (n = ${row.n})`, hoverinfo: "text", text: row.gains.map((gain) => gainInWords(figure, row, gain)) });
    if (row.paper && overlay.checked) {
      traces.push({ ...there, mode: "lines", line: { color: colour, dash: "dash", width: 2 }, x: deciles, y: row.paper,
        showlegend: false, hoverinfo: "text", text: row.paper.map((gain, k) => `paper, ${shown(row.label)}<br>D${k}: ${minus(gain)} %`) });
    }
  });
  const wide = printing ? PAPER : element.clientWidth;
  const entry = 6 * Math.max(...traces.map((trace) => trace.name?.length ?? 0)) + 50;
  const legend = 22 * Math.ceil(rows.length / Math.max(1, Math.floor(wide / entry)));
  page.legend = { ...page.legend, xref: "container", x: 0, yref: "container", y: 0, yanchor: "bottom", entrywidth: entry - 40 };
  page.height = 340 + legend;
  page.margin = { l: 56, r: 10, t: 10, b: 56 + legend };
  page.xaxis = { ...page.xaxis, zeroline: false, tickvals: deciles, ticktext: deciles.map((k) => `D${k}`),
    title: { text: "test cases, by rising gain", standoff: 4 } };
  page.yaxis = { ...page.yaxis, zeroline: true };
  plot(element, [...bands, ...traces], page);
}

// From the default to what was chosen. Both lines begin at 0: the two splits' scores may lie far apart.
function drawPath(element, { path }) {
  // Of a split, so in no colour that a model has.
  const colours = [printing ? "#000" : getComputedStyle(document.body).color, onGround("#C2185B")];
  const change = (gain) => {
    const text = gain.toFixed(path.digits);
    return Number(text) === 0 ? text.replace("-", "") : `${gain > 0 ? "+" : ""}${text}`.replace("-", "−");
  };
  const traces = ["validation, which chose", "test"].map((name, split) => {
    const scores = [path.default[split], ...path.steps.map((step) => step.scores[split])];
    const first = scores.find((score) => score !== null) ?? null;
    const ends = [scores[0], scores.at(-1)].map((score) => (score === null ? "–" : score.toFixed(path.digits)));
    const gain = (k) => (k ? path.steps[k - 1].gains[split] : null);
    const noise = (k) => (k && split ? path.steps[k - 1].noise : null);
    return {
      x: scores.map((_, k) => k + 0.08 * split), y: scores.map((score) => (score === null ? null : score - first)),
      name: `${name}: ${ends.join(" → ")}`, mode: "lines+markers+text",
      line: { color: colours[split], shape: "hv", dash: split ? "dash" : "solid" },
      marker: { color: colours[split], symbol: SYMBOLS[split], size: 8 },
      text: scores.map((_, k) => (k && !path.steps[k - 1].kept && gain(k) !== null ? `step ${change(gain(k))}` : "")),
      cliponaxis: false, textfont: { color: colours[split] },
      error_y: { type: "data", array: scores.map((_, k) => noise(k) ?? 0), visible: path.steps.some((_, k) => noise(k + 1) !== null) },
      customdata: scores.map((score, k) => [k ? path.steps[k - 1].value : "default", score === null ? "" : score.toFixed(path.digits),
        k && score !== null ? `<br>${change(score - first)} against the default` : "",
        gain(k) === null ? "" : `<br>step ${change(gain(k))}${noise(k) === null ? "" : ` ± ${noise(k).toFixed(path.digits)}`}`]),
      hovertemplate: `%{customdata[0]}<br>${split ? "test" : "validation"} %{customdata[1]}%{customdata[2]}%{customdata[3]}<extra></extra>`,
    };
  });
  traces.forEach((trace, i) => { // apart from the other split's
    trace.textposition = trace.y.map((y, k) => (y > traces[1 - i].y[k] || (i === 0 && y === traces[1].y[k]) ? "top left" : "bottom left"));
  });
  const reach = traces.flatMap((trace) => trace.y.flatMap((y, k) => (y === null ? [] : [y - trace.error_y.array[k], y + trace.error_y.array[k]])));
  const [low, high] = [Math.min(...reach), Math.max(...reach)];
  const names = ["default", ...path.steps.map((step) => (step.kept ? `${step.value}<br>kept` : `<b>${step.value}</b>`))];
  plot(element, traces, layout("What each decision brought", "score − the default’s", {
    x: { tickvals: names.map((_, k) => k), ticktext: names, range: [element.clientWidth < 500 ? -0.9 : -0.4, names.length - 0.6], zeroline: false },
    y: { range: [low - 0.15 * (high - low), high + 0.15 * (high - low)] } }));
}

// What a series is has one look in every chart of a case; what has no role is grey, its name on hover.
const ROLES = {
  chosen: { color: "#0072B2", symbol: "circle", dash: "solid" },
  stable: { color: "#009E73", symbol: "diamond", dash: "dash" },
  lazy: { color: "#AA4499", symbol: "triangle-up", dash: "dot" },
  ERM: { color: "#D55E00", symbol: "square", dash: "dashdot" },
  teacher: { color: "#8C6D1F", symbol: "star", dash: "solid" },
};
const OTHER = { color: "#8a8f98", symbol: "circle-open", dash: "solid" };
const roleOf = (each) => ROLES[each.role] ?? OTHER;
const styled = ({ color, symbol, dash }, width, size) => ({
  mode: "lines+markers", line: { color: onGround(color), dash, width }, marker: { color: onGround(color), symbol, size } });

// Series that lie on one another are one with all of their names, so that none hides another.
// Those with a role come first.
function merged(series) {
  const found = new Map();
  series.filter((each) => each.points.length).forEach((each) => {
    const same = JSON.stringify(each.points);
    if (!found.has(same)) found.set(same, { ...each, roles: new Set(), names: new Set() });
    if (each.role) found.get(same).roles.add(each.role);
    found.get(same).names.add(each.name);
  });
  const all = [...found.values()].sort((a, b) => (b.roles.size > 0) - (a.roles.size > 0));
  return all.map((each) => {
    const roles = [...each.roles].join(" = ");
    const names = [...each.names].join(" = ");
    const said = !roles || each.name.includes(roles); // such as: no teacher (ERM)
    const label = roles ? (said ? each.name : `${roles}: ${each.name}`) : "other candidates";
    return { ...each, title: roles || names, label, full: said ? names : `${roles}: ${names}` };
  });
}

function seriesTraces(series, digits, at) {
  const all = merged(series);
  const first = all.find((each) => !each.roles.size);
  return all.map((each) => {
    const look = roleOf(each);
    return { ...(look === OTHER ? styled(look, 1, 5) : styled(look, 2.5, 8)),
      x: each.points.map((p) => p[0]), y: each.points.map((p) => p[1]), name: each.label,
      legendgroup: each.label, showlegend: look !== OTHER || each === first,
      hovertemplate: `${each.full}<br>${at} %{x}: %{y:.${digits}f}<extra></extra>` };
  }).reverse(); // what has a role is drawn over what has none
}

function drawCurves(element, found, column, title) {
  const series = found.choices.map((choice) => {
    const best = new Map(); // of a value, the best validation score at any value of the other one
    choice.trials.filter((t) => t[column] !== null && t[2] !== null).forEach((t) => {
      best.set(t[column], Math.max(best.get(t[column]) ?? -Infinity, t[2]));
    });
    return { ...choice, points: [...best].sort((a, b) => a[0] - b[0]) };
  }).filter((each) => each.points.length > 1);
  const tried = [...new Set(series.flatMap((each) => each.points.map((p) => p[0])))];
  const ticks = column === 0 ? { dtick: Math.log10(2) } : { tickvals: tried, ticktext: tried };
  single(element, seriesTraces(series, found.digits, "at"),
    layout(title, "best validation score", { x: { type: "log", ...ticks }, legend: { traceorder: "reversed", tracegroupgap: 0 } }));
}

const byEpoch = (runs, column) => runs.map((run) => ({
  ...run, points: run.epochs.map((e) => [e[0], e[column]]) }));

function drawRuns(element, runs, column, title, y, digits) {
  single(element, seriesTraces(byEpoch(runs, column), digits, "epoch"),
    layout(title, y, { x: { tickformat: "d" }, legend: { traceorder: "reversed", tracegroupgap: 0 } }));
}

const MOST_LOSSES = 6; // small charts, where no run has a role yet
function drawLosses(element, found) {
  const all = merged(byEpoch(found.runs, 1));
  const withRole = all.filter((each) => each.roles.size);
  const runs = withRole.length ? withRole : all.slice(0, MOST_LOSSES);
  const columns = Math.min(runs.length, (printing ? PAPER : element.clientWidth) < 600 ? 2 : 4);
  const rows = Math.ceil(runs.length / columns);
  const page = layout(`Training loss of its best trials, by epoch${underSeed}`, "", {});
  const { xaxis, yaxis, ...rest } = page;
  const axes = {};
  const traces = runs.map((run, i) => {
    const k = i ? i + 1 : "";
    axes[`xaxis${k}`] = { ...xaxis, tickformat: "d", nticks: 6 };
    axes[`yaxis${k}`] = { ...yaxis, title: {}, nticks: 4 };
    return { ...styled(roleOf(run), 2, 6), x: run.points.map((p) => p[0]), y: run.points.map((p) => p[1]),
      xaxis: `x${k}`, yaxis: `y${k}`, showlegend: false,
      hovertemplate: `${run.full}<br>epoch %{x}: %{y:.4g}<extra></extra>` };
  });
  const titles = runs.map((run, i) => ({
    text: run.roles.size ? `<b>${run.title}</b><br>${run.name}` : run.name, showarrow: false, font: { size: 11 },
    align: "left", xref: `x${i ? i + 1 : ""} domain`, yref: `y${i ? i + 1 : ""} domain`, x: 0, y: 1,
    xanchor: "left", yanchor: "bottom" }));
  element.style.minHeight = `${rows * 12 + 3}rem`;
  single(element, traces, { ...rest, ...axes, annotations: titles, margin: { ...rest.margin, t: 76 },
    grid: { rows, columns, pattern: "independent", xgap: 0.25, ygap: 0.5 } });
}

// The line is of training, the points are of validation; both have one entry in the legend.
function drawEntropy(element, found, title = "Posterior entropy") {
  const free = COLOURS.filter((colour) => colour !== ROLES.ERM.color);
  const traces = found.measured.flatMap((run, i) => {
    const { line, marker } = styled(ROLES[run.role] ?? { color: free[i % free.length], symbol: symbolOf(i) }, 2, 7);
    const points = (cells, name, more) => ({ line, marker, ...more, x: cells.map((c) => c[0]),
      y: cells.map((c) => c[1]), name: run.name, legendgroup: run.name,
      hovertemplate: `${name}<br>epoch %{x}: %{y:.3f} nats<extra></extra>` });
    return [
      points(run.curve, `${run.name}, training`, { mode: "lines", line: { ...line, width: 1, dash: "solid" }, showlegend: false }),
      points(run.epochs, `${run.name}, validation`, { mode: "lines+markers", line: { ...line, dash: "dot" } }),
    ];
  }).filter((trace) => trace.x.length);
  single(element, traces, layout(`${title}; points: validation`, "nats", {
    x: { title: { text: "epoch", standoff: 4 } }, legend: { tracegroupgap: 0 } }));
}

function drawMeasure(element, found) {
  const { measure, name } = element.dataset;
  const runs = found.measured.map((run) => ({ ...run, epochs: run.epochs.filter((e) => e[measure] !== null) }));
  drawRuns(element, runs, measure, `${name}, by epoch${studentsUnder}`, "on validation", 3);
}

function single(element, traces, page) {
  element.hidden = traces.length === 0; // nothing was varied
  if (traces.length) plot(element, traces, page);
}

const CHARTS = {
  path: drawPath,
  temperature: (e, found) => drawCurves(e, found, 0, "Over the teacher’s temperature τ_t"),
  rate: (e, found) => drawCurves(e, found, 1, "Over the learning rate"),
  epochs: (e, found) => drawRuns(e, found.runs, 2, `Best trial of each choice, by epoch${underSeed}`, "validation score", found.digits),
  entropy: (e, found) => drawEntropy(e, found, `Posterior entropy${studentsUnder}`),
  measure: drawMeasure,
  loss: drawLosses,
};

function drawCase(details) {
  const found = data.cases[details.dataset.case];
  details.querySelectorAll("[data-chart]").forEach((element) => {
    const draw = () => CHARTS[element.dataset.chart](element, found);
    if (!drawn.has(element)) { drawn.set(element, draw); draw(); }
  });
}

const redraw = () => drawn.forEach((draw) => draw());
document.querySelectorAll(".gains").forEach((element) => {
  drawn.set(element, () => drawGains(element));
});
redraw();
overlay?.addEventListener("change", () => { // it is there where the paper has any of the rows
  document.querySelectorAll("tr.paper").forEach((row) => { row.hidden = !overlay.checked; });
  document.querySelectorAll(".gains").forEach(drawGains);
});
dark.addEventListener("change", redraw);

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
  if (text === "–") return null;
  return k === 0 || row.cells[k].matches(".text") ? text : parseFloat(text.replaceAll(",", "").replace("−", "-"));
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
