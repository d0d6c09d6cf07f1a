"use strict";
// After page.js: of each data set the test scores along its lines of generations.
function drawGenerations(element, { metric, digits, lines }) {
  const traces = lines.map(({ name, tests }, i) => ({
    x: tests.map((_, k) => k + 1), y: tests, name: shown(name), ...look(i),
    text: tests.map((test) => (test === null ? "" : test.toFixed(digits))),
    hovertemplate: `${shown(name)}<br>generation %{x}: test %{text}<extra></extra>`,
  }));
  const last = Math.max(...lines.map(({ tests }) => tests.length));
  const x = { title: { text: "generation", standoff: 4 }, dtick: 1, range: [0.8, last + 0.2] };
  plot(element, traces, { ...layout("", `test ${metric}`, { x }), showlegend: true });
}

document.querySelectorAll("[data-generations]").forEach((element) => {
  const draw = () => drawGenerations(element, data.generations[element.dataset.generations]);
  drawn.set(element, draw);
  draw();
});
