"use strict";
// What the page does for an operator: each action is one POST of the control API, after a
// second step in a dialog. The token of control.json is asked for once and kept for this tab.
const TOKEN = "sgcache.token";
// A trigger without an answer is repeated with its key, so that it starts nothing twice.
const unanswered = new Map();

function notice(level, text) {
  const box = byId("notice");
  box.className = "notice " + level;
  box.firstElementChild.replaceChildren(signs[level] + " ", words(text));
  box.hidden = false;
}
function button(id, text, action, label) {
  const made = el("button", "", text);
  made.type = "button"; if (id) made.id = id;
  if (label) made.setAttribute("aria-label", label);
  made.addEventListener("click", action);
  return made;
}

// Asks in a dialog; returns the values of its fields by name, or null when it is closed.
function ask(title, text, submit, fields = []) {
  const dialog = byId("ask");
  return new Promise(done => {
    const inputs = fields.map(field => {
      const input = el("input", "");
      input.id = "ask-" + field.name; input.type = field.type || "text"; input.autocomplete = "off";
      return input;
    });
    const problem = el("p", "bad", "");
    problem.setAttribute("role", "alert");
    const finish = () => {
      const wrong = fields.findIndex((field, i) => field.check && field.check(inputs[i].value.trim()));
      if (wrong >= 0) { problem.textContent = fields[wrong].check(inputs[wrong].value.trim()); inputs[wrong].focus(); return; }
      done(Object.fromEntries(fields.map((field, i) => [field.name, inputs[i].value.trim()])));
      dialog.close();
    };
    inputs.forEach(input => input.addEventListener("keydown", event => { if (event.key === "Enter") { event.preventDefault(); finish(); } }));
    const rows = fields.map((field, i) => {
      const label = el("label", "", field.label); label.htmlFor = inputs[i].id;
      return el("p", "field", label, inputs[i]);
    });
    const heading = el("h2", "", title); heading.id = "ask-title";
    dialog.replaceChildren(heading, el("div", "body", el("p", "", words(text)), ...rows, problem,
      el("p", "acts", button("ask-submit", submit, finish), button("ask-close", "Back", () => dialog.close()))));
    // Closed without an answer. The event comes late: by then the next question may be open.
    dialog.onclose = () => { if (!dialog.open) done(null); };
    dialog.showModal();
    (inputs[0] || byId("ask-submit")).focus();
  });
}

async function askToken(isWrong) {
  const text = (isWrong ? "That token is not the one of this daemon; it changes with each start. " : "") +
    "Changes need the token in `control.json` in the data directory, which only the user of the daemon can read. It is kept until this tab is closed.";
  const needed = value => value ? "" : "the token is needed";
  const answer = await ask("Control token", text, "Go on", [{ name: "token", label: "Token", type: "password", check: needed }]);
  return answer && answer.token;
}

// Sends one operation and says what came of it; returns the document of the answer, or null.
async function act(path, body, sentence) {
  let isWrong = false;
  for (;;) {
    const token = sessionStorage.getItem(TOKEN) || await askToken(isWrong);
    if (!token) return null;
    if (!unanswered.has(path)) unanswered.set(path, Date.now().toString(36) + "-" + Math.random().toString(36).slice(2));
    const headers = { authorization: "Bearer " + token, "content-type": "application/json", "idempotency-key": unanswered.get(path) };
    let answer, result = {};
    try {
      answer = await fetch("api/v1/" + path, { method: "POST", credentials: "omit", headers, body: JSON.stringify(body || {}), signal: AbortSignal.timeout(30000) });
      if (answer.status !== 401) result = await answer.json();
    } catch (error) {
      notice("bad", "No answer (" + error.message + "): whether it was done is not known. Press again: a run is not started twice.");
      return null;
    }
    unanswered.delete(path);
    if (answer.status === 401) { sessionStorage.removeItem(TOKEN); isWrong = true; continue; }
    sessionStorage.setItem(TOKEN, token);
    if (!answer.ok) { notice("bad", result.error ? result.error.message : "HTTP " + answer.status); return null; }
    notice("ok", sentence(result));
    poll();
    return result;
  }
}

async function triggerPipeline(name) {
  if (await ask("Run " + name + " now?", "It starts at once with its default parameters. Other parameters: `sgcache pipelines trigger --help`.", "Run now"))
    await act("pipelines/" + encodeURIComponent(name) + "/trigger", {}, result => name + " runs: " + result.run_id + ".");
}
async function pausePipeline(name) {
  const needed = value => value ? "" : "say why: the reason is shown wherever the pause is";
  const answer = await ask("Pause " + name, "It does not start by itself until it is resumed. What runs goes on.", "Pause", [
    { name: "reason", label: "Reason", check: needed }, { name: "length", label: "For how long, such as 2h (empty: until it is resumed)" }]);
  if (!answer) return;
  const body = answer.length ? { reason: answer.reason, for: answer.length } : { reason: answer.reason };
  await act("pipelines/" + encodeURIComponent(name) + "/pause", body, () => name + " is paused.");
}
async function resumePipeline(name) {
  await act("pipelines/" + encodeURIComponent(name) + "/resume", {}, result => name + (result.was_paused ? " is resumed." : " was not paused."));
}
async function cancelRun(id, name) {
  if (await ask("Stop the run of " + name + "?", "It ends as cancelled. What it has written stays.", "Stop the run"))
    await act("runs/" + id + "/cancel", {}, () => "The run of " + name + " was asked to stop.");
}
async function retryRun(id, name) {
  if (await ask("Run " + name + " again?", "A new run with the parameters of this one.", "Run again")) {
    const result = await act("runs/" + id + "/retry", {}, answer => name + " runs: " + answer.run_id + ".");
    if (result) openRun(result.run_id);
  }
}
async function retryDeadLetters(selection, what) {
  await act("dead-letters/retry", selection, result => count(result.refetched) + " rows are refetched (" + what + ")." + (result.note ? " " + result.note : ""));
}
async function dropDeadLetters(selection, what) {
  if (await ask("Drop " + what + "?", "It is forgotten; the row stays as it was last read. This cannot be undone.", "Drop"))
    await act("dead-letters/drop", selection, result => count(result.dropped) + " dropped.");
}
async function confirmDeletions(type, rows) {
  const exact = value => value === String(rows) ? "" : "type " + rows + ", the number of rows";
  const text = count(rows) + " rows of " + type + " vanished at once. Check the site and the rights of the script first. Confirmed, they are deleted from the cache if no list of the site shows them.";
  if (await ask("Delete " + count(rows) + " rows of " + type + "?", text, "Delete them", [{ name: "rows", label: "Type the number of rows", check: exact }]))
    await act("breakers/" + encodeURIComponent(type) + "/confirm", {}, result => count(result.entities) + " deletions of " + type + " are applied.");
}
async function resetBreaker(type) {
  await act("breakers/" + encodeURIComponent(type) + "/reset", {}, result => count(result.entities) + " rows of " + type + " are read again.");
}
async function reloadFiles() {
  await act("reload", {}, result => "Took over " + result.pipelines + " pipelines and " + result.types + " types." + (result.needs_restart.length ? " After a restart: " + result.needs_restart.join(", ") + "." : ""));
}
