/** The page's script: what the page can do without it is done without it. */
export const SCRIPT = `"use strict";
const all = (selector, from = document) => [...from.querySelectorAll(selector)];
const scroll = document.querySelector(".scroll");
const canvas = document.querySelector(".canvas");
const tip = document.getElementById("tip");
const steps = all(".step");
const summaries = steps.map((step) => step.firstElementChild);
for (const hidden of all(".zoom, .keys")) hidden.hidden = false;

let zoom = 1;
function zoomTo(next, x = scroll.clientWidth / 2) {
  const place = (scroll.scrollLeft + x) / canvas.clientWidth;
  zoom = Math.min(Math.max(next, 1), 2000);
  canvas.style.width = zoom * 100 + "%";
  canvas.classList.toggle("near", zoom >= 8);
  canvas.classList.toggle("nearest", zoom >= 80);
  tip.hidden = true;
  scroll.scrollLeft = place * canvas.clientWidth - x;
}
for (const button of all("[data-zoom]"))
  button.addEventListener("click", () => zoomTo(Number(button.dataset.zoom) * zoom || 1));
scroll.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  zoomTo(zoom * Math.exp(-event.deltaY / 300), event.clientX - scroll.getBoundingClientRect().left);
}, { passive: false });

/** The bar that the tip is about. */
let told;
function tell(bar) {
  told = bar;
  tip.textContent = bar.getAttribute("aria-label");
  tip.hidden = false;
  const { left, bottom } = bar.getBoundingClientRect();
  tip.style.left = Math.max(8, Math.min(left, innerWidth - tip.offsetWidth - 8)) + "px";
  tip.style.top = bottom + 8 + "px";
}
// the browser scrolls to what is focused, whenever it gets to it; from beneath a pointer the bar is gone
addEventListener("scroll", () => {
  if (!tip.hidden && told === document.activeElement) tell(told);
  else tip.hidden = true;
}, { capture: true, passive: true });

function open(step) {
  step.open = true;
  mark(step);
  step.firstElementChild.focus({ preventScroll: true });
  step.scrollIntoView({ block: "center" });
}
function mark(step) {
  for (const other of all(".current")) other.classList.remove("current");
  step.classList.add("current");
  for (const bar of all('a.bar[href="#' + step.id + '"]')) bar.classList.add("current");
}
for (const bar of all("a.bar")) {
  const step = document.querySelector(bar.getAttribute("href"));
  bar.addEventListener("click", (event) => { event.preventDefault(); open(step); });
  for (const name of ["mouseenter", "focus"])
    bar.addEventListener(name, () => {
      tell(bar);
      mark(step);
    });
  for (const name of ["mouseleave", "blur"]) bar.addEventListener(name, () => { tip.hidden = true; });
}
for (const step of steps) {
  step.addEventListener("mouseenter", () => mark(step));
  step.firstElementChild.addEventListener("focus", () => mark(step));
}
for (const button of all("[data-open]"))
  button.addEventListener("click", () => { for (const step of steps) step.open = button.dataset.open === "all"; });

const bars = all("a.bar");
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const move = (list, by) => {
    const at = list.indexOf(document.activeElement);
    const next = list[at < 0 ? (by > 0 ? 0 : list.length - 1) : at + by];
    if (next === undefined) return;
    next.focus();
    event.preventDefault();
  };
  const keys = {
    ArrowDown: () => move(summaries, 1),
    ArrowUp: () => move(summaries, -1),
    ArrowRight: () => move(bars, 1),
    ArrowLeft: () => move(bars, -1),
    Escape: () => { tip.hidden = true; },
    "+": () => zoomTo(zoom * 2),
    "-": () => zoomTo(zoom / 2),
    0: () => zoomTo(1),
  };
  keys[event.key]?.();
});
if (location.hash !== "") { const step = document.querySelector(".step" + location.hash); if (step !== null) open(step); }
const failed = document.querySelector(".step.failed");
if (failed !== null) failed.open = true;
`;
