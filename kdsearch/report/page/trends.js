"use strict";
// After page.js: what goes with what, a line for each block of cases, a colour for each data set, or
// of a single one for each block.
function drawTrend(element, trend) {
  const by = new Set(trend.lines.map((line) => line.dataset)).size > 1 ? "dataset" : "name";
  const names = [...new Set(trend.lines.map((line) => line[by]))];
  const seen = new Set();
  const traces = trend.lines.map(({ [by]: name, points }) => {
    const style = look(names.indexOf(name)), first = !seen.has(name);
    seen.add(name);
    return {
      ...style, line: { ...style.line, width: 1 }, name: shown(name), legendgroup: name, showlegend: first,
      x: points.map(([x]) => x), y: points.map(([, y]) => y),
      text: points.map(([x, y, name]) => `${shown(name)}<br>${shown(trend.x)}: ${x.toLocaleString("en")}<br>${trend.y}: ${y.toFixed(1)}`),
      hovertemplate: "%{text}<extra></extra>",
    };
  });
  const page = layout(trend.title, trend.y, { x: { title: { text: trend.x, standoff: 4 }, ...(trend.log ? { type: "log", dtick: "D2", tickformat: "~s" } : {}) } });
  plot(element, traces, page);
}

document.querySelectorAll("[data-trend]").forEach((element) => {
  const draw = () => drawTrend(element, data.trends[element.dataset.trend]);
  drawn.set(element, draw);
  draw();
});
