"use strict";
// How numbers, times and nodes are written. What is not known is a dash, never 0.
const count = value => value == null ? "–" : Number(value).toLocaleString("en");
const percent = ratio => ratio == null ? "–" : (Math.floor(ratio * 1000) / 10).toFixed(1) + " %";
const between = (from, to) => from && to ? (Date.parse(to) - Date.parse(from)) / 1000 : null;

function span(seconds) {
  if (seconds == null || Number.isNaN(seconds)) return "–";
  const s = Math.abs(seconds);
  if (s < 10) return s.toFixed(1) + " s";
  if (s < 120) return Math.round(s) + " s";
  if (s < 7200) return Math.round(s / 60) + " min";
  if (s < 172800) return Math.round(s / 3600) + " h";
  return Math.round(s / 86400) + " d";
}
function milliseconds(ms) {
  if (ms == null) return "–";
  return ms < 10 ? ms.toFixed(1) + " ms" : ms < 1000 ? Math.round(ms) + " ms" : (ms / 1000).toFixed(2) + " s";
}
function bytes(n) {
  if (n == null) return "–";
  return n < 1e6 ? (n / 1e3).toFixed(0) + " kB" : n < 1e9 ? (n / 1e6).toFixed(1) + " MB" : (n / 1e9).toFixed(2) + " GB";
}
// Every time of the page is in the zone of config.yaml; the clock in its head names it.
let zone = "UTC";
function clock(at, withDay) {
  const parts = { timeZone: zone, hour: "2-digit", minute: "2-digit" };
  if (withDay) Object.assign(parts, { weekday: "short", day: "numeric", month: "short" }); else parts.second = "2-digit";
  return new Intl.DateTimeFormat("en-GB", parts).format(new Date(at));
}
function zoneName(at) {
  const parts = new Intl.DateTimeFormat("en-GB", { timeZone: zone, timeZoneName: "short" }).formatToParts(new Date(at));
  return parts.find(part => part.type === "timeZoneName").value;
}
const ago = (at, now) => at ? span(between(at, now)) + " ago" : "never";

// Makes an element: a class name, then texts and elements.
function el(tag, name, ...children) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...children.filter(child => child != null));
  return made;
}
const byId = id => document.getElementById(id);
// Words between backticks are commands or names.
function words(text) {
  const made = document.createDocumentFragment();
  text.split("`").forEach((part, i) => made.append(i % 2 ? el("code", "", part) : part));
  return made;
}
// Replaces what an element shows only where that has changed, so that nothing jumps and
// focus and selections stay.
const shown = new Map();
function show(id, data, draw) {
  const text = JSON.stringify(data);
  if (shown.get(id) === text) return;
  shown.set(id, text);
  const focused = document.activeElement && document.activeElement.id;
  byId(id).replaceChildren(...[draw()].flat());
  byId(id).querySelectorAll(".scroll").forEach(reach);
  if (focused && byId(focused) && document.activeElement.id !== focused) byId(focused).focus();
}
// What scrolls has to be reached by keyboard, what does not would only be in the way.
function reach(box) { box.scrollWidth > box.clientWidth ? box.setAttribute("tabindex", "0") : box.removeAttribute("tabindex"); }
function table(heads, rows) {
  const head = el("tr", "", ...heads.map(([text, name]) => { const cell = el("th", name, text); cell.scope = "col"; return cell; }));
  const body = rows.map(cells => el("tr", "", ...cells.map((cell, i) => el("td", heads[i][1], cell))));
  const made = el("table", "", el("thead", "", head), el("tbody", "", ...body));
  const box = el("div", "scroll", made);
  new ResizeObserver(() => reach(box)).observe(box);
  return box;
}
