"use strict";
// After page.js. Terms in tables and summaries are explained where they stand.
const terms = JSON.parse(document.getElementById("terms").textContent);
const meaning = new Map(terms.flatMap(([forms, text]) => forms.map((form) => [form, text])));
const LETTER = "[\\p{L}\\p{N}_/-]"; // within a word, or within a test case's name
const anyTerm = new RegExp(
  [...meaning.keys()].sort((a, b) => b.length - a.length)
    .map((form) => `(?<!${LETTER})${form.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&")}(?!${LETTER})`).join("|"), "gu");

function mark(element, seen = null) {
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) {
    if (!walker.currentNode.parentElement.closest("abbr, bdi, pre, code")) texts.push(walker.currentNode);
  }
  texts.forEach((node) => {
    const parts = [];
    let end = 0;
    for (const found of node.data.matchAll(anyTerm)) {
      if (found[0] === "±" && element.matches("td")) continue; // in a header it is explained
      if (seen?.has(found[0])) continue;
      seen?.add(found[0]);
      const abbr = document.createElement("abbr");
      abbr.title = meaning.get(found[0]);
      abbr.textContent = found[0];
      parts.push(node.data.slice(end, found.index), abbr);
      end = found.index + found[0].length;
    }
    if (parts.length) node.replaceWith(...parts, node.data.slice(end));
  });
}
document.querySelectorAll("main :is(th, td, caption, strong, summary span)").forEach((element) => mark(element));
const inAnswer = new Set(); // a text has it at the first place
document.querySelectorAll("#answer :is(p, li)").forEach((element) => mark(element, inAnswer));

// A title is for a mouse alone: a tap, or the focus on a button, shows the same text.
const shownTerm = document.getElementById("term");
function explain(abbr) {
  shownTerm.hidden = !abbr;
  shownTerm.textContent = abbr ? `${abbr.textContent}: ${abbr.title}` : "";
}
addEventListener("click", (event) => explain(event.target.closest("abbr")));
addEventListener("focusin", (event) => explain(event.target.matches("th button") && event.target.querySelector("abbr")));
addEventListener("keydown", (event) => { if (event.key === "Escape") explain(null); });

// What scrolls can be scrolled with the keyboard.
const watched = new ResizeObserver((entries) => entries.forEach(({ target }) => {
  if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
  else target.removeAttribute("tabindex");
}));
document.querySelectorAll(".wide").forEach((element) => {
  element.setAttribute("role", "group");
  element.setAttribute("aria-label", "A table, which scrolls sideways where it is wide");
  watched.observe(element);
});
