"use strict";
// After page.js: of each student a chart, its methods side by side.
document.querySelectorAll("[data-smoothing]").forEach((element) => {
  const draw = () => drawEntropy(element, data.smoothing[element.dataset.smoothing]);
  drawn.set(element, draw);
  draw();
});
