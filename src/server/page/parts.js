"use strict";
// The parts of the page, each drawn from the status document alone.
const signs = { ok: "✓", busy: "…", warn: "▲", bad: "✖" };
const stateWords = { ok: "ok", busy: "working", warn: "look at this", bad: "broken" };
const levelWords = ["up to 2 s old", "up to 5 s old", "up to 30 s old", "older than 30 s", "not served", "being imported", "not known"];
const stopped = ["cancelled", "interrupted"];
const MAX_TYPES = 14, MAX_PIPELINES = 14;
const open = { types: false, pipelines: false };

function heading(id, title, note) {
  const made = el("h2", "", title, " ", el("span", "note", note || ""));
  made.id = id + "-title";
  return made;
}
function moreButton(id, text) {
  const button = el("button", "", text);
  button.type = "button"; button.id = "more-" + id;
  button.addEventListener("click", () => { open[id] = !open[id]; redraw(); });
  return el("p", "more", button);
}

function drawHealth(s) {
  const h = s.health;
  byId("rule").className = "rule " + h.level;
  byId("mark").textContent = signs[h.level]; byId("mark").className = "mark " + h.level;
  byId("titletext").textContent = h.title;
  const since = h.since || s.started_at;
  byId("since").textContent = "Since " + clock(since, true) + " " + zoneName(since) + " (" + span(between(since, s.now)) + ").";
  byId("site").textContent = s.site;
  show("answers", [h.reads, h.writes, h.site, h.drift], () =>
    [["Reads", h.reads], ["Writes", h.writes], ["Site", h.site], ["Drift", h.drift]].map(([name, answer]) =>
      el("div", "", el("dt", "", name), el("dd", (answer.level === "ok" ? "" : answer.level) + (answer.text.length > 70 ? " long" : ""), answer.level === "ok" ? "" : signs[answer.level] + " ", words(answer.text)))));
  const needs = h.needs.map(need => [need.level, need.text]).concat(s.reasons.filter(r => !h.needs.some(n => n.code === r.code)).map(r => ["bad", r.subject + ": " + r.message]));
  byId("needs").hidden = !needs.length;
  show("needs", needs, () => needs.map(([level, text]) => el("li", "", el("span", level, signs[level] + " " + stateWords[level]), " ", words(text))));
}

function figure(title, value, ...notes) { return el("div", "", el("h3", "", title), el("b", "", value), ...notes.map(note => el("small", "", note))); }
function hours(counted, now) {
  const hour = 3600000, newest = Math.floor(Date.parse(now) / hour) * hour;
  const perHour = Array.from({ length: 24 }, (_, i) => counted.find(one => Date.parse(one.at) === newest - (23 - i) * hour) || { hits: 0, passes: 0 });
  const top = Math.max(1, ...perHour.map(hour => hour.hits + hour.passes));
  const bars = perHour.map(hour => {
    const bar = el("i", "", el("b", "")), all = hour.hits + hour.passes;
    bar.style.height = (all ? Math.max(8, 100 * all / top) : 0) + "%";
    bar.firstChild.style.height = (all ? 100 * hour.passes / all : 0) + "%";
    return bar;
  });
  const box = el("div", "hours", ...bars);
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", "Reads per hour, at most " + count(top));
  return box;
}
function drawReads(s) {
  const ledger = s.ledger;
  show("reads", ledger && { ...ledger, until: 0 }, () => {
    if (!ledger) return [heading("reads", "What it gives you"), el("p", "body dim", "This process counts no reads.")];
    const note = "today since " + clock(ledger.since, true) + " " + zoneName(ledger.since);
    const method = ledger.methods[0];
    const figures = el("div", "figures",
      figure("Reads answered today", count(ledger.reads), hours(ledger.per_hour, s.now), ledger.failed ? count(ledger.failed) + " had no answer" : "per hour, last 24 h; on top: from the site"),
      figure("From the cache", percent(ledger.hit_ratio), ledger.previous_hit_ratio == null ? "" : "before " + percent(ledger.previous_hit_ratio), ledger.stale_hits ? " " + count(ledger.stale_hits) + " older than usual" : ""),
      figure("Waiting saved", ledger.saved_seconds == null ? "–" : span(Math.max(ledger.saved_seconds, 0)), method && method.site_p50_ms != null ? "a " + method.method + " takes " + milliseconds(method.site_p50_ms) + " at the site, " + milliseconds(method.cache_p50_ms) + " here (medians)" : "not known until the site has answered a read"),
      figure("Writes visible after", ledger.writes.visible_p50_seconds == null ? "–" : milliseconds(1e3 * ledger.writes.visible_p50_seconds), ledger.writes.count ? "median of " + count(ledger.writes.count) + " writes; all within " + milliseconds(1e3 * ledger.writes.visible_max_seconds) : "no write yet", ledger.writes.failed ? ", " + count(ledger.writes.failed) + " failed" : ""));
    if (!ledger.reads) return [heading("reads", "What it gives you", note), figures, el("p", "body dim", "No read came through the proxy yet: programs read here when their site is the address of `listen.api`.".replaceAll("`", ""))];
    const reasons = ledger.reasons.slice(0, 6).map(one => {
      const track = el("i", ""); track.style.width = 100 * one.calls / ledger.reasons[0].calls + "%";
      return el("div", "reason", el("p", "", el("span", "", words(one.label)), el("b", "", count(one.calls))), el("span", "track", track),
        el("p", "note", words(one.remedy || (one.reason === "other" ? "" : "Nothing to change: " + one.reason + "."))));
    });
    const slow = table([["At"], ["What"], ["Who", "wide"], ["Took", "n"]], ledger.slowest.slice(0, 5).map(one => [clock(one.at), one.method + " " + (one.entity_type || ""), one.caller, milliseconds(one.ms)]));
    const callers = table([["Who reads most"], ["Reads", "n"], ["Cache", "n"], ["Saved", "n wide"]], ledger.callers.slice(0, 6).map(one => [one.caller, count(one.reads), percent(one.hit_ratio), one.saved_seconds == null ? "–" : span(Math.max(one.saved_seconds, 0))]));
    return [heading("reads", "What it gives you", note), figures, el("div", "two",
      el("div", "", el("h3", "", ledger.passes ? "Why " + count(ledger.passes) + " reads went to the site" : "Every read came from the cache"), ...reasons,
        el("p", "note", "What to change: ", el("code", "", "sgcache proxy advise"), "; more: ", el("code", "", "sgcache proxy report"))),
      el("div", "", callers, ledger.slowest.length ? el("h3", "", "Slowest answers of the site") : null, ledger.slowest.length ? slow : null))];
  });
}

function strip(levels, until, name) {
  const box = el("span", "strip");
  let begin = 0;
  for (let i = 1; i <= levels.length; i++) {
    if (i < levels.length && levels[i] === levels[begin]) continue;
    const part = el("i", "l" + levels[begin]);
    part.style.flexGrow = i - begin;
    const from = Date.parse(until) - (levels.length - begin) * 900000, to = Date.parse(until) - (levels.length - i) * 900000;
    part.title = clock(from).slice(0, 5) + " to " + clock(to).slice(0, 5) + ": " + levelWords[levels[begin]];
    box.append(part); begin = i;
  }
  const worst = [4, 3, 2].find(level => levels.includes(String(level)));
  const unknown = [...levels].filter(level => level === "6").length;
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", name + ", last 24 hours: " + (worst ? "at worst " + levelWords[worst] : "at most 5 s old") + (unknown ? ", not known for " + span(unknown * 900) : ""));
  return box;
}
// Worst first: what is not served, what has a problem, drift, lag, then bad quarters.
function badness(t) {
  const served = ["live", "degraded", "reimporting", "untracked"].includes(t.state);
  const quarters = [...(t.strip || "")].filter(level => "234".includes(level)).length;
  return [!served, !!t.problem, t.drift_ratio > 0, (t.lag_seconds || 0) > 5, quarters];
}
function byBadness(a, b) {
  const [x, y] = [badness(a), badness(b)];
  for (let i = 0; i < x.length; i++) if (x[i] !== y[i]) return Number(y[i]) - Number(x[i]);
  return a.type.localeCompare(b.type);
}
function drawTypes(s) {
  const types = [...s.types].sort(byBadness), many = types.length > MAX_TYPES + 6;
  const listed = many && !open.types ? types.slice(0, MAX_TYPES) : types;
  const rows = s.types.reduce((all, t) => all + t.rows, 0);
  const data = listed.map(t => ({ ...t, fresh_as_of: ago(t.fresh_as_of, s.now), validated_at: ago(t.validated_at, s.now), lag_seconds: span(t.lag_seconds) }));
  show("types", [data, open.types, s.strips_until], () => {
    const cells = listed.map(t => {
      const levels = t.strip || "6".repeat(96);
      const state = t.import ? t.state + " " + Math.floor(100 * t.import.done / Math.max(1, t.import.total)) + " %" : t.state;
      const bad = t.state === "live" && !t.problem ? "" : t.state === "unhealthy" ? "bad" : t.state === "new" || t.state === "importing" ? "busy" : "warn";
      const name = el("span", "", t.type, bad ? el("small", bad, state + (t.problem ? ": " : ""), words(t.problem || "")) : null);
      const drift = t.drift_ratio == null ? "not known" : t.drift_ratio > 0 ? (100 * t.drift_ratio).toPrecision(2) + " %" : "none";
      return [name, strip(levels, s.strips_until || s.now, t.type), count(t.rows), span(between(t.fresh_as_of, s.now)), t.lag_seconds == null ? "not known" : span(t.lag_seconds),
        el("span", t.drift_ratio > 0 ? "warn" : "", drift), ago(t.validated_at, s.now)];
    });
    const heads = [["Type"], ["Last 24 h, now at the right", "strips"], ["Rows", "n wide"], ["Age", "n"], ["Lag", "n wide"], ["Drift", "n"], ["Compared", "n wide"]];
    const legend = el("div", "legend", ...levelWords.map((word, level) => el("span", "", el("i", "l" + level), word)));
    const rest = types.slice(listed.length), restLag = Math.max(0, ...rest.map(t => t.lag_seconds || 0));
    const restDrift = rest.filter(t => t.drift_ratio > 0).length;
    const sentence = "Show the other " + rest.length + " types: " + (rest.every(t => t.lag_seconds != null) ? "at most " + span(restLag) + " behind" : "lag not known") + (restDrift ? ", " + restDrift + " with drift" : ", none with known drift");
    return [heading("types", "How fresh each type is", s.types.length + " types, " + count(rows) + " rows, worst first"), table(heads, cells), legend,
      many ? moreButton("types", open.types ? "Show only the first " + MAX_TYPES : sentence) : null].filter(Boolean);
  });
}

function outcomes(list, name) {
  const box = el("span", "outcomes");
  for (const one of list) {
    const kind = stopped.includes(one.status) ? "stopped" : one.status;
    const bar = el("i", kind === "ok" || kind === "warn" ? "" : kind);
    bar.addEventListener("click", () => openRun(one.run_id));
    bar.title = one.status + ", " + clock(one.started_at, true) + (one.seconds == null ? "" : ", " + span(one.seconds));
    box.append(bar);
  }
  const bad = list.filter(one => !["ok", "warn", "running"].includes(one.status));
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", name + ": " + list.length + " runs, " + (bad.length ? bad.length + " not ok, last " + bad[bad.length - 1].status : "all ok"));
  return box;
}
const worstRuns = { error: 4, timeout: 4, drift: 3, interrupted: 2 };
function pipelineButtons(p) {
  const made = [];
  const runsAllTheTime = !p.next_run && p.running && p.schedule === "all the time";
  if (p.running && p.run_id) made.push(button("open-" + p.name, "Watch", () => openRun(p.run_id), "Watch the run of " + p.name));
  if (p.running && p.run_id && !runsAllTheTime) made.push(button("cancel-" + p.name, "Stop", () => cancelRun(p.run_id, p.name), "Stop the run of " + p.name));
  if (!p.running && p.enabled) made.push(button("trigger-" + p.name, "Run", () => triggerPipeline(p.name), "Run " + p.name + " now"));
  if (p.paused) made.push(button("resume-" + p.name, "Resume", () => resumePipeline(p.name), "Resume " + p.name));
  else if (p.enabled) made.push(button("pause-" + p.name, "Pause", () => pausePipeline(p.name), "Pause " + p.name));
  return made;
}
function pipelineState(p) { return p.running ? "running" : p.paused ? "paused" : p.enabled === false ? "disabled" : "idle"; }
function drawPipelines(s) {
  const order = p => (p.paused ? 1 : 0) + (worstRuns[p.last_status] || 0) * 2;
  const sorted = [...s.pipelines].sort((a, b) => order(b) - order(a));
  const many = sorted.length > MAX_PIPELINES, listed = many && !open.pipelines ? sorted.slice(0, 12) : s.pipelines.length > MAX_PIPELINES ? sorted : s.pipelines;
  const data = listed.map(p => [p, ago(p.last_finished_at, s.now), span(between(s.now, p.next_run))]);
  show("pipelines", [data, open.pipelines], () => {
    const cells = listed.map(p => {
      const acts = el("span", "acts", ...pipelineButtons(p));
      const name = el("span", "", p.name, el("small", "", p.schedule || "on request"), acts); name.title = p.schedule_words || "";
      const state = pipelineState(p), bad = { error: "bad", timeout: "bad", drift: "warn", interrupted: "warn" }[p.last_status] || "";
      const newest = (p.outcomes || [])[(p.outcomes || []).length - 1];
      const opener = newest ? button("last-" + p.name, p.last_status, () => openRun(newest.run_id), "Open the last run of " + p.name + ": " + p.last_status) : el("span", "", p.last_status || "");
      if (bad) opener.className = bad;
      const last = p.last_status ? el("span", "", opener, el("small", "", ago(p.last_finished_at, s.now))) : "no run yet";
      const next = p.paused ? "–" : p.next_run ? el("span", "", clock(p.next_run, true), el("small", "", "in " + span(between(s.now, p.next_run)))) : p.running ? "all the time" : "on request";
      return [name, el("span", { running: "busy", paused: "warn" }[state] || "", state), p.outcomes && p.outcomes.length ? outcomes(p.outcomes, p.name) : "–", last, next];
    });
    const legend = el("div", "legend", el("span", "", "One bar is one run, newest at the right: low grey stopped, half ok, with a cap repaired, full drift or error, hollow timeout."));
    return [heading("pipelines", "Pipelines", s.pipelines.length + (s.pipelines.some(p => p.running) ? ", " + s.pipelines.filter(p => p.running).length + " running" : "")),
      cells.length ? table([["Pipeline"], ["State"], ["Last 30 runs", "wide"], ["Last"], ["Next", "wide"]], cells) : el("p", "body dim", "No pipeline is loaded."), legend,
      many ? moreButton("pipelines", open.pipelines ? "Show fewer" : "Show the other " + (sorted.length - listed.length)) : null].filter(Boolean);
  });
}

function value(text) { return text === "" || text == null ? "nothing" : text; }
function drawDrift(s) {
  const cards = s.drift_cards || [], compared = s.types.filter(t => t.validated_at).length, drifted = s.types.filter(t => t.drift_ratio > 0).length;
  const note = compared ? compared + " of " + s.types.length + " types compared, " + (drifted ? drifted + " with open drift" : "no open drift") : "nothing was compared yet";
  show("drift", [cards, note], () => {
    const drawn = cards.map(card => el("div", "card",
      el("p", "", el("b", "", card.type + " " + card.id), " ", card.kind === "differs" ? "" : card.kind + " ", el("span", card.action === "repaired" ? "ok" : "warn", signs[card.action === "repaired" ? "ok" : "warn"] + " " + card.action),
        el("span", "note", " found " + clock(card.found_at, true) + " by ", button("found-" + card.type + "-" + card.id, card.pipeline, () => openRun(card.run_id), "Open the run of " + card.pipeline + " that found " + card.type + " " + card.id), (card.updated_by ? "; changed by " + card.updated_by : "") + (card.class ? "; " + card.class.replaceAll("_", " ") : ""))),
      card.fields.length ? el("dl", "", ...card.fields.flatMap(one => [el("dt", "", one.field), el("dd", "", el("span", "note", "cache "), value(one.cached)), el("dd", "", el("span", "note", "site "), value(one.site))])) : null));
    return [heading("drift", "Drift", note), ...(drawn.length ? drawn : [el("p", "body dim", "No mismatch was found in the last runs.")])];
  });
}

function drawApart(s) {
  const apart = s.set_apart || { dead: [], quarantine: [], breakers: [] };
  const dead = Object.values(s.sync.dead_letters || {}).reduce((a, b) => a + b, 0);
  show("apart", [apart, dead], () => {
    const drawn = [];
    for (const one of apart.breakers) drawn.push(el("div", "card", el("span", "warn", signs.warn + " deletions held"), ": " + count(one.held) + " of " + count(one.active) + " rows of ", el("b", "", one.type), " vanished at once, since " + clock(one.since, true) + ". ", el("code", "", "sgcache breaker show"),
      el("span", "acts", button("confirm-" + one.type, "Confirm", () => confirmDeletions(one.type, one.held), "Confirm the deletions of " + one.type), button("reset-" + one.type, "Read again", () => resetBreaker(one.type), "Read again the rows of " + one.type))));
    for (const one of apart.quarantine) drawn.push(el("div", "card", el("span", "warn", signs.warn + " quarantine"), ": " + count(one.rows) + " rows of ", el("b", "", one.type), " cannot be read; answers that may hold them come from the site."));
    for (const one of apart.dead) drawn.push(el("div", "card", el("span", "warn", signs.warn + " dead letter " + one.serial), " (" + one.kind + ") ", el("b", "", one.type + " " + one.id), ": " + one.error, el("span", "note", " since " + clock(one.first_at, true) + ", tried " + one.attempts + " times"),
      el("span", "acts", one.kind === "event" ? null : button("retry-" + one.serial, "Refetch", () => retryDeadLetters({ serials: [one.serial] }, one.type + " " + one.id), "Refetch the row of dead letter " + one.serial),
        button("drop-" + one.serial, "Drop", () => dropDeadLetters({ serials: [one.serial] }, "dead letter " + one.serial), "Drop dead letter " + one.serial))));
    const note = drawn.length ? dead + " dead letters" : "no dead letter, no row in quarantine, no deletion held";
    if (dead) drawn.push(el("p", "body", apart.dead.length + " of " + count(dead) + ". ", button("retry-all", "Refetch all", () => retryDeadLetters({ all: true }, "all dead letters")), " All of them: ", el("code", "", "sgcache deadLetters list")));
    return [heading("apart", "Set apart", note), ...drawn];
  });
}

function drawStore(s) {
  const y = s.sync, dirty = Object.values(y.marks || {}).reduce((a, b) => a + b, 0);
  const pairs = [
    ["Store", el("span", s.store.up ? "" : "bad", s.store.kind + " " + (s.store.up ? "up" : "down") + (s.store.problem ? ": " + s.store.problem : "") + ", " + bytes(s.store.size_bytes))],
    ["Place", s.store.location || "–"],
    ["Site", s.health.site.text],
    ["Event log", y.event_id == null ? "not read yet" : "read up to " + y.event_id + (y.gaps_open ? ", " + y.gaps_open + " gaps asked for again" : ", no gaps")],
    ["To read again", dirty ? count(dirty) + " rows" : "nothing"],
    ["Reports", s.store.reports_waiting ? count(s.store.reports_waiting) + " documents wait to be delivered" : "all delivered"],
    ["Files", el("span", "", s.config_problem ? el("span", "warn", signs.warn + " " + s.config_problem + " ") : "in use as they were last loaded ", button("reload", "Load again", reloadFiles))],
    ["Leads", s.waiting ? s.waiting.message : y.following ? "this process follows the site" : "does not follow the site now"],
    ["Loops", s.loops.every(one => one.state === "running") ? "all " + s.loops.length + " run" : s.loops.filter(one => one.state !== "running").map(one => one.name + " " + one.state).join(", ")],
  ];
  show("store", pairs.map(([name, node]) => [name, node.textContent || node]), () => [heading("store", "Store and process"), el("dl", "pair", ...pairs.flatMap(([name, node]) => [el("dt", "", name), el("dd", "", node)]))]);
}
