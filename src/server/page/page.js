"use strict";
// Draws the status as the daemon streams it. While no stream comes through, the status is
// asked for every two seconds. When no answer comes either, everything that is shown loses
// its colour and says from when it is.
const EVERY = 2000, SILENT = 5000;
let status_, answeredAt = null, failingSince = null, plot = null, points = [];
// What is being pressed is not replaced: the press would be lost.
let isPressing = false;

function redraw() {
  if (!status_ || isPressing) return;
  const s = status_;
  drawHealth(s); drawReads(s); drawPipelines(s); drawTypes(s); drawLag(s); drawDrift(s); drawApart(s); drawStore(s);
  const title = { bad: "!! ", warn: "! " }[s.health.level] || "";
  document.title = title + "sgcache " + s.site;
  byId("foot").textContent = ["sgcache " + s.version, s.instance, "up " + span(between(s.started_at, s.now)), "times in " + zone].join(" · ");
  // An old status that is drawn again is still old.
  sign();
}

// Where nothing is known the line is interrupted.
function drawLag(s) {
  const known = s.sync.lag_history, now = Date.parse(s.now) / 1000;
  const last = points[points.length - 1];
  if (!last || last[0] < now) points.push([now, s.sync.lag_seconds]);
  points = points.slice(-1800);
  const older = known.filter(point => Date.parse(point.at) / 1000 < points[0][0]).map(point => [Date.parse(point.at) / 1000, point.seconds]);
  const all = older.concat(points), data = [all.map(point => point[0]), all.map(point => point[1])];
  const highest = Math.max(0, ...data[1].filter(value => value != null));
  byId("lagnote").textContent = s.sync.lag_seconds == null ? "not known: the site does not answer" : "now " + span(s.sync.lag_seconds) + ", at most " + span(highest) + " in the last " + span(now - all[0][0]);
  const box = byId("lagplot"), style = getComputedStyle(document.documentElement), colour = name => style.getPropertyValue(name).trim();
  const width = Math.max(200, box.clientWidth - 20), theme = document.documentElement.dataset.theme;
  if (plot && plot.theme === theme) { plot.setSize({ width, height: 170 }); plot.setData(data); return; }
  if (plot) plot.destroy();
  const axis = { stroke: colour("--dim"), grid: { stroke: colour("--hair"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  plot = new uPlot({
    width, height: 170, cursor: { y: false }, legend: { show: false },
    scales: { x: { time: true }, y: { range: (u, low, high) => [0, Math.max(6, (high || 0) * 1.1)] } },
    tzDate: at => uPlot.tzDate(new Date(at * 1000), zone),
    axes: [{ ...axis, values: (u, ticks) => ticks.map(at => clock(at * 1000).slice(0, 5)) }, { ...axis, size: 50, values: (u, ticks) => ticks.map(value => value + " s") }],
    series: [{}, { stroke: colour("--plot"), fill: colour("--plotf"), width: 1.3, spanGaps: false, points: { show: false } }],
    hooks: { draw: [u => threshold(u, 5, "5 s: amber", colour("--warn"))] },
  }, data, box);
  plot.theme = theme;
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", "Lag behind the site over time; the figures are in the heading");
}
function threshold(u, seconds, text, colour) {
  const y = u.valToPos(seconds, "y", true), { ctx, bbox } = u;
  ctx.save(); ctx.strokeStyle = ctx.fillStyle = colour; ctx.setLineDash([4, 4]); ctx.beginPath(); ctx.moveTo(bbox.left, y); ctx.lineTo(bbox.left + bbox.width, y); ctx.stroke();
  ctx.textAlign = "left"; ctx.font = 11 * devicePixelRatio + "px system-ui"; ctx.fillText(text, bbox.left + 6, y - 4); ctx.restore();
}

// The live sign: the clock of the last answer, or since when there is none.
function sign() {
  const live = byId("live"), text = byId("livetext");
  const old = failingSince !== null;
  live.className = old ? "live old" : "live";
  document.body.className = old ? "gone" : "";
  if (!old) { if (answeredAt) text.textContent = "live, " + clock(answeredAt) + " " + zoneName(answeredAt); return; }
  byId("titletext").textContent = "sgcache does not answer.";
  byId("mark").textContent = "–"; byId("mark").className = "mark";
  byId("rule").className = "rule";
  document.title = "? sgcache";
  const shownFrom = answeredAt ? " All below is as of " + clock(answeredAt) + " " + zoneName(answeredAt) + " (" + span((Date.now() - answeredAt) / 1000) + " old)." : "";
  byId("since").textContent = "No answer since " + clock(failingSince) + ": is the daemon running?" + shownFrom;
  text.textContent = "no answer, data is old";
}

function take(status) {
  status_ = status;
  zone = status_.timezone || "UTC";
  answeredAt = Date.now(); failingSince = null;
  sign();
  // Drawing takes at most a fifth of the time, however large the status and slow the machine.
  if (drawing === null) drawing = setTimeout(draw, Math.max(0, drawnAt + 4 * drawnFor - performance.now()));
}
let drawing = null, drawnAt = 0, drawnFor = 0;
function draw() {
  const began = performance.now();
  drawing = null;
  redraw();
  drawnAt = performance.now(); drawnFor = drawnAt - began;
}
let isPolling = false;
async function poll() {
  if (isPolling) return;
  isPolling = true;
  try {
    const answer = await fetch("api/v1/status", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error("HTTP " + answer.status);
    take(await answer.json());
  } catch (error) {
    // The first answer that is missing counts.
    if (failingSince === null) failingSince = Date.now();
    console.debug(error.message);
    sign();
  }
  isPolling = false;
}
// Looks whether the stream still comes, and polls where it does not.
async function watch() {
  const quiet = answeredAt === null ? SILENT : Date.now() - answeredAt;
  if (!stream || stream.readyState !== EventSource.OPEN || quiet >= SILENT) await poll();
  if (openedRun) await drawRun();
  const away = failingSince === null ? 0 : (Date.now() - failingSince) / 1000;
  setTimeout(watch, away > 300 ? 30000 : EVERY);
}
let stream = null;
function listen() {
  stream = new EventSource("api/v1/events");
  stream.addEventListener("status", event => take(JSON.parse(event.data)));
  stream.addEventListener("run", event => { if (JSON.parse(event.data).run_id === openedRun) drawRun(); });
  stream.addEventListener("error", () => {
    poll();
    // Refused, for instance because too many streams are open: the browser gives up by itself.
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 30000);
  });
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
  shown.clear(); redraw();
}
addEventListener("DOMContentLoaded", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  setTheme(dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => setTheme(dark.matches ? "dark" : "light"));
  byId("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  const links = [...document.querySelectorAll("nav a")];
  links.forEach(link => link.addEventListener("click", event => { event.preventDefault(); const part = byId(link.hash.slice(1)); part.scrollIntoView(); part.focus({ preventScroll: true }); }));
  addEventListener("keydown", event => {
    if (document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey || /input|select|textarea/i.test(event.target.tagName)) return;
    if (event.key === "t") byId("theme").click();
    else if (links[Number(event.key) - 1]) links[Number(event.key) - 1].click();
  });
  addEventListener("resize", () => status_ && drawLag(status_));
  byId("run").addEventListener("close", () => { openedRun = null; });
  byId("notice").append(button("notice-close", "Close", () => { byId("notice").hidden = true; }));
  byId("notice").hidden = true;
  addEventListener("pointerdown", () => { isPressing = true; });
  // The click comes after the pointer is up.
  for (const name of ["pointerup", "pointercancel"]) addEventListener(name, () => setTimeout(() => { isPressing = false; }));
  listen();
  watch();
});
