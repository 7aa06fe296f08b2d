"use strict";
// A run, opened: why it ended as it did, its steps with their counts, and its log, which
// grows while the run goes on.
const LOG_LINES = 200;
let openedRun = null;

async function read(path) {
  const answer = await fetch("api/v1/" + path, { cache: "no-store", signal: AbortSignal.timeout(10000) });
  if (!answer.ok) throw new Error("HTTP " + answer.status);
  return answer.json();
}
async function openRun(id) {
  openedRun = id;
  const dialog = byId("run");
  if (!dialog.open) { shown.delete("run"); dialog.showModal(); }
  await drawRun();
}
async function drawRun() {
  const id = openedRun;
  if (!id) return;
  try {
    const [run, log] = await Promise.all([read("runs/" + id), read("runs/" + id + "/log?last=" + LOG_LINES)]);
    // Another one was opened, or it was closed, before the answer came.
    if (openedRun === id) show("run", [run, log], () => runParts(run, log.lines));
  } catch (error) {
    if (openedRun === id) show("run", error.message, () => [runHeading("Run " + id), el("p", "body bad", "The run cannot be read: " + error.message), runButtons(null)]);
  }
}
function closeRun() { openedRun = null; byId("run").close(); }

function runHeading(text) { const made = el("h2", "", text); made.id = "run-title"; return made; }
function runStatus(run) { return run.finished_at ? run.status : "running"; }
function runParts(run, lines) {
  const status = runStatus(run), level = { error: "bad", timeout: "bad", drift: "warn", interrupted: "warn", running: "busy" }[status] || "";
  const params = Object.entries(run.params || {}).map(([name, value]) => name + " = " + JSON.stringify(value)).join(", ");
  const pairs = [
    ["Status", el("span", level, status + (run.reason ? ": " + run.reason : ""))],
    ["Started", clock(run.started_at, true) + " " + zoneName(run.started_at) + " by " + run.trigger + (run.waited_for ? ", after it waited for " + run.waited_for : "")],
    ["Took", run.finished_at ? span(between(run.started_at, run.finished_at)) : "goes on"],
    ["Parameters", params || "none"], ["Requests", count(run.requests)], ["Process", run.instance],
  ];
  return [runHeading(run.pipeline + ", " + status), el("dl", "pair", ...pairs.flatMap(([name, node]) => [el("dt", "", name), el("dd", "", node)])),
    ...runSteps(run), ...runHooks(run), ...runLog(lines), runButtons(run)];
}
function runSteps(run) {
  if (!run.steps.length) return [el("p", "body dim", run.finished_at ? "No step was run." : "No step has ended yet.")];
  const number = value => value ? count(value) : "–";
  const rows = run.steps.map(step => {
    const r = step.result, why = step.error ? step.error.message : step.reason;
    const level = { error: "bad", timeout: "bad", drift: "warn" }[step.status] || "";
    return [el("span", "", step.id, el("small", "", step.job)), el("span", level, step.status, why ? el("small", "", words(why)) : null), span(step.duration_seconds), number(r.checked), number(r.missing), number(r.extra), number(r.differs), number(r.repaired), number(r.written)];
  });
  return [table([["Step"], ["Status"], ["Took", "n"], ["Checked", "n"], ["Missing", "n"], ["Extra", "n"], ["Differs", "n"], ["Repaired", "n"], ["Written", "n"]], rows)];
}
function runHooks(run) {
  return (run.hooks || []).map(hook => el("p", "body", hook.target + ": ", hook.error ? el("span", "bad", hook.error) : "sent"));
}
function runLog(lines) {
  if (!lines.length) return [el("p", "body dim", "Nothing was logged.")];
  const dropped = lines[0].number ? el("p", "body dim", count(lines[0].number) + " lines before these: sgcache pipelines logs") : null;
  const text = lines.map(line => [clock(line.at), line.level.toUpperCase().padEnd(5), line.step ? line.step + ":" : "", line.message,
    ...Object.entries(line.fields || {}).map(([name, value]) => name + "=" + (typeof value === "string" ? value : JSON.stringify(value)))].filter(Boolean).join(" ")).join("\n");
  const made = el("pre", "log", text);
  made.id = "run-log"; made.tabIndex = 0; made.setAttribute("role", "region"); made.setAttribute("aria-label", "Log");
  // New lines show, unless older ones are being read.
  const before = byId("run-log");
  const place = before && before.scrollTop + before.clientHeight < before.scrollHeight - 4 ? before.scrollTop : null;
  requestAnimationFrame(() => { made.scrollTop = place === null ? made.scrollHeight : place; });
  return [dropped, made].filter(Boolean);
}
function runButtons(run) {
  const made = el("p", "body acts");
  if (run) {
    const pipeline = status_.pipelines.find(one => one.name === run.pipeline), all = pipeline ? pipeline.outcomes : [];
    const at = all.findIndex(one => one.run_id === run.run_id);
    const older = at < 0 ? all[all.length - 1] : all[at - 1], newer = at < 0 ? null : all[at + 1];
    if (older) made.append(button("run-older", "Older run", () => openRun(older.run_id)));
    if (newer) made.append(button("run-newer", "Newer run", () => openRun(newer.run_id)));
    if (!run.finished_at) made.append(button("run-cancel", "Stop", () => cancelRun(run.run_id, run.pipeline)));
    else if (run.definition_hash) made.append(button("run-retry", "Run again", () => retryRun(run.run_id, run.pipeline)));
  }
  made.append(button("run-close", "Close", closeRun));
  return made;
}
