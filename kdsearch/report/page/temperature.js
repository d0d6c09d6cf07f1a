"use strict";
// After page.js: a temperature study. The axis of τ is logarithmic, its ticks are the values tried.
const GREYS = ["#8a8f98", "#a7abb2", "#c2c5ca"]; // of fewer and fewer epochs
const ON_DARK = ["#a2a9b4", "#7d838c", "#5f656e"];
const greyOf = (i) => (dark.matches && !printing ? ON_DARK : GREYS)[Math.min(i, GREYS.length - 1)];

function overTau(title, y, tried, more = {}) {
  const logs = tried.map(Math.log10);
  const [low, high] = [Math.min(...logs), Math.max(...logs)];
  const pad = Math.max((high - low) * 0.06, 0.05);
  return layout(title, y, {
    x: { type: "log", tickvals: tried, ticktext: tried.map(String), tickangle: 0, range: [low - pad, high + pad],
      title: { text: "temperature τ", standoff: 4 }, zeroline: false, minor: { ticks: "" } },
    y: { zeroline: false, ...more } });
}

const triedOf = (series) => [...new Set(series.flatMap((each) => each.points.map((p) => p[0])))]
  .filter((t) => t !== null).sort((a, b) => a - b);

// Of each objective the longest training has a colour; those of fewer epochs are grey, and behind it.
function drawLines(element, found) {
  const main = found.series.filter((each) => each.main);
  const rest = found.series.filter((each) => !each.main).sort((a, b) => a.epochs - b.epochs);
  const tried = triedOf(found.series);
  const width = (each, trace) => {
    const flat = each.points.find((p) => p[0] === null); // an objective without a temperature
    if (!flat) return trace;
    return { ...trace, mode: "lines", x: [tried[0] ?? 1, tried.at(-1) ?? 1], y: [flat[1], flat[1]], line: { ...trace.line, dash: "dot" }, error_y: { visible: false } };
  };
  const trace = (each, style, errors) => width(each, {
    ...style, name: shown(each.name), x: each.points.map((p) => p[0]), y: each.points.map((p) => p[1]),
    error_y: { type: "data", array: each.points.map((p) => p[2] ?? 0), visible: errors && each.points.some((p) => p[2]), thickness: 1.2, width: 3, color: style.line.color },
    text: each.points.map((p) => `${shown(each.name)}<br>τ ${p[0] ?? "–"}: ${p[1].toFixed(found.digits)}${p[2] === null ? "" : ` ± ${p[2].toFixed(found.digits)}`}`
      + `${p[3] === null ? "" : `<br>learning rate ${p[3]}`}${p[4] ? "<br>best by validation" : ""}`),
    hovertemplate: "%{text}<extra></extra>" });
  const traces = [
    ...rest.map((each, i) => trace(each, { mode: "lines+markers", line: { color: greyOf(rest.length - 1 - i), width: 1.2 },
      marker: { color: greyOf(rest.length - 1 - i), size: 5, symbol: symbolOf(rest.length - i) } }, false)),
    ...main.map((each) => trace(each, look(each.look, each.look < COLOURS.length ? "solid" : "dashdot"), true)).reverse(),
  ];
  if (found.alone !== null) {
    const [alone, name] = found.alone;
    traces.unshift({ x: [tried[0] ?? 1, tried.at(-1) ?? 1], y: [alone, alone], mode: "lines", name,
      line: { color: onGround(ROLES.ERM.color), dash: "dash", width: 1.2 }, hovertemplate: `${name}: ${alone.toFixed(found.digits)}<extra></extra>` });
  }
  const page = overTau("", "test score", tried.length ? tried : [1], { range: padded(found.range) });
  page.legend.traceorder = "reversed";
  page.showlegend = true;
  page.margin.t = 10;
  withRoom(element, traces.map((each) => each.name));
  plot(element, traces, page);
}

// Room for a plot above a legend of many rows, which Plotly gives at most half of the height.
function withRoom(element, names) {
  const lines = names.flatMap((name) => name.split("<br>"));
  const width = 45 + 6.5 * Math.max(...lines.map((line) => line.length));
  const rows = Math.ceil(lines.length / Math.max(1, Math.floor((element.clientWidth - 60) / width)));
  element.style.minHeight = `${Math.max(288, 19 * rows + 220, 2 * (19 * rows + 30))}px`;
}

function padded([low, high]) {
  const pad = (high - low || 0.1) * 0.06;
  return [low - pad, high + pad];
}

// The mean of the sorted softmax; from yellow at the lowest τ to violet at the highest.
function drawSoftmax(element, found) {
  const shade = (i) => `hsl(${48 + (230 * i) / Math.max(1, found.curves.length - 1)} 75% ${dark.matches && !printing ? 60 : 42}%)`;
  const traces = found.curves.map(([tau, ranks, lowest], i) => {
    const cut = found.classes > ranks.length;
    return {
      x: [...ranks.map((_, k) => k + 1), ...(cut ? [found.classes] : [])], y: [...ranks, ...(cut ? [lowest] : [])],
      mode: ranks.length > 30 ? "lines" : "lines+markers", name: `τ ${tau}`, line: { color: shade(i), width: 2 }, marker: { color: shade(i), size: 5, symbol: symbolOf(i) },
      hovertemplate: `τ ${tau}, rank %{x}: %{y:.3g}<extra></extra>`,
    };
  });
  const decades = -Math.log10(Math.min(...found.curves.map(([, , lowest]) => Math.max(lowest, 1e-30))));
  const page = layout("", "mean probability", {
    x: { title: { text: "classes, the most probable first", standoff: 4 }, tickformat: "d", zeroline: false, ...(found.classes > 12 ? {} : { dtick: 1 }) },
    y: { type: "log", exponentformat: "power", ...(decades < 2 ? {} : { dtick: Math.ceil(decades / 5) }), zeroline: false } });
  page.margin.t = 10;
  plot(element, traces, page);
}

// Data sets side by side, each less its own score at its lowest τ.
function drawDatasets(element, found) {
  const tried = triedOf(found.series);
  const traces = found.series.map((each, i) => ({
    ...look(i), name: shown(each.name), x: each.points.map((p) => p[0]), y: each.points.map((p) => p[1]),
    error_y: { type: "data", array: each.points.map((p) => p[2] ?? 0), visible: each.points.some((p) => p[2]), thickness: 1.2, width: 3, color: colourOf(i) },
    hovertemplate: `${shown(each.name)}<br>τ %{x}: %{y:+.1f} points<extra></extra>` }));
  const page = overTau("", "points over its lowest τ", tried, { zeroline: true });
  page.margin.t = 10;
  plot(element, traces, page);
}

const OVER_TAU = { lines: drawLines, controls: drawLines, softmax: drawSoftmax, datasets: drawDatasets };
// They may be many: each is drawn when it comes into sight, and all before a print.
const toDraw = new Map([...document.querySelectorAll("[data-temperature]")].map((element) => {
  const { temperature, number } = element.dataset;
  return [element, () => OVER_TAU[temperature](element, data.temperature[temperature][number])];
}));
function drawNow(element) {
  if (drawn.has(element)) return;
  drawn.set(element, toDraw.get(element));
  toDraw.get(element)();
}
const inSight = new IntersectionObserver(
  (entries) => entries.filter((each) => each.isIntersecting).forEach((each) => drawNow(each.target)), { rootMargin: "400px" });
toDraw.forEach((_, element) => inSight.observe(element));
addEventListener("beforeprint", () => toDraw.forEach((_, element) => drawNow(element)));
