"use strict";
// After page.js: of each data set its models by size and test score; a marker's area is the speed.
const KINDS = ["teacher", "chosen", "stable", "ERM"]; // as in the charts of a case
const [SMALLEST, LARGEST] = [7, 20]; // a marker's diameter
const LINE = 15; // of a label, in pixels
const LONGEST = 30; // of a label, in characters

const short = (text) => shown(text.length > LONGEST ? `${text.slice(0, LONGEST - 1)}…` : text);

function diameter(model, fastest) {
  return model.speed ? Math.max(SMALLEST, LARGEST * Math.sqrt(model.speed / fastest)) : SMALLEST;
}

function sizeTraces({ models, digits }) {
  const fastest = Math.max(...models.map((model) => model.speed ?? 0));
  const traces = [];
  const front = models.filter((model) => model.front).sort((a, b) => a.parameters - b.parameters);
  if (front.length > 1) {
    traces.push({ x: front.map((m) => m.parameters), y: front.map((m) => m.test), mode: "lines", name: "front",
      line: { color: COLOURS[6], shape: "hv", dash: "dot" }, hoverinfo: "skip" });
  }
  KINDS.forEach((kind) => {
    const some = models.filter((model) => model.kind === kind);
    if (!some.length) return;
    traces.push({
      x: some.map((m) => m.parameters), y: some.map((m) => m.test), name: kind, mode: "markers",
      marker: { color: onGround(ROLES[kind].color), symbol: ROLES[kind].symbol, size: some.map((m) => diameter(m, fastest)), opacity: 0.85 },
      text: some.map((m) => `${shown(m.name)}${m.front ? ", on the front" : ""}<br>${m.parameters.toLocaleString("en")} parameters<br>`
        + `${m.speed ? `${Math.round(m.speed).toLocaleString("en")} examples/s` : "not timed"}<br>test ${m.test.toFixed(digits)}`),
      hovertemplate: "%{text}<extra></extra>",
      error_y: { type: "data", array: some.map((m) => m.spread ?? 0), visible: some.some((m) => m.spread), thickness: 1 },
    });
  });
  return traces;
}

// Names beside the points, towards the middle, moved apart where they would lie over one another.
function sizeLabels(models, [low, high], [least, most], height) {
  const at = (model) => (height * (most - model.test)) / (most - least);
  const middle = (low + high) / 2;
  const labels = [];
  [false, true].forEach((right) => {
    const some = models.filter((m) => (Math.log10(m.parameters) > middle) === right).sort((a, b) => at(a) - at(b));
    if (some.length * LINE > height) return; // there is no room: hovering and the table name them
    const places = some.map(at);
    for (let i = 1; i < places.length; i += 1) places[i] = Math.max(places[i], places[i - 1] + LINE);
    const over = Math.max(0, places[places.length - 1] - height);
    places.reduceRight((below, place, i) => (places[i] = Math.min(place - (i === places.length - 1 ? over : 0), below)) - LINE, Infinity);
    some.forEach((model, i) => labels.push({
      x: Math.log10(model.parameters), y: model.test, text: short(model.label), font: { size: 11 },
      ax: right ? -22 : 22, ay: places[i] - at(model), xanchor: right ? "right" : "left", arrowwidth: 1, arrowhead: 0, standoff: 4,
    }));
  });
  return labels;
}

function drawSizes(element, found) {
  const logs = found.models.map((model) => Math.log10(model.parameters));
  const tests = found.models.flatMap(({ test, spread }) => [test - spread, test + spread]);
  const around = (values, share, least) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const margin = Math.max((high - low) * share, least);
    return [low - margin, high + margin];
  };
  const x = around(logs, 0.12, 0.1);
  const y = around(tests, 0.2, 10 ** -found.digits);
  const decades = [...Array(12).keys()].map((k) => 10 ** k);
  const ticks = decades.flatMap((decade) => [decade, 2 * decade, 5 * decade]);
  const page = layout(found.models.some((model) => model.speed) ? "The larger the marker, the faster" : "", `test ${found.metric}`, {
    x: { type: "log", range: x, tickvals: ticks, tickformat: "~s", title: { text: "parameters", standoff: 4 } },
    y: { range: y } });
  const text = page.font.color;
  const back = getComputedStyle(document.documentElement).getPropertyValue("--back").trim();
  const below = element.clientWidth < 500 ? 190 : 150; // and above the plot; a legend takes two lines on a phone
  const labels = sizeLabels(found.models, x, y, element.clientHeight - below);
  page.annotations = labels.map((label) => ({ ...label, arrowcolor: text, bgcolor: printing ? "#fff" : back, font: { ...label.font, color: text } }));
  plot(element, sizeTraces(found), page);
}

document.querySelectorAll("[data-sizes]").forEach((element) => {
  const draw = () => drawSizes(element, data.sizes[element.dataset.sizes]);
  drawn.set(element, draw);
  draw();
});
