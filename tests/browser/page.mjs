// Opens the status page in a real Chromium and says, as JSON on stdout, what is there: the
// sentence at its top, what axe-core finds, whether anything is cut off at a width, which
// addresses were asked, and errors of the scripts.
//
//   node page.mjs CHROMIUM MODULES URL [--until TEXT] [--steps JSON] [--expand] [--picture FILE] [--stop PID]
//
// `--steps` is what a person does, a list of ["click", SELECTOR], ["focus", SELECTOR], ["type", SELECTOR, TEXT],
// ["key", KEY], ["see", TEXT] and ["gone", SELECTOR]; what is open after it is looked at as it is.
// `--until` waits until the heading contains a text; `--stop` stops a process first and
// waits until the page says that its data is old; `--expand` unfolds every list. MODULES is a folder `node_modules` with
// puppeteer-core and axe-core.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [chromium, modules, url, ...rest] = process.argv.slice(2);
const option = name => { const at = rest.indexOf(name); return at < 0 ? null : rest[at + 1]; };
const require = createRequire(pathToFileURL(modules + "/x.js"));
const puppeteer = require("puppeteer-core");
const axe = require("axe-core").source;

const WIDTHS = [320, 768, 1280, 1920, 3840];
const browser = await puppeteer.launch({ executablePath: chromium, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"] });
const page = await browser.newPage();
const errors = [], addresses = new Set();
page.on("pageerror", error => errors.push(String(error)));
// The browser itself reports an answer that refuses: with steps, the page has to say so.
page.on("console", message => { if (message.type() === "error" && !option("--stop") && !(option("--steps") && message.text().includes("status of 4"))) errors.push(message.text()); });
page.on("request", request => addresses.add(new URL(request.url()).origin));
await page.setViewport({ width: 1280, height: 900 });
await page.goto(url, { waitUntil: "load" });
const heading = () => page.$eval("#titletext", node => node.textContent);
const until = async text => { await page.waitForFunction(text => document.getElementById("titletext").textContent.includes(text), { timeout: 120000 }, text); };
await page.waitForFunction(() => document.querySelector("#types table"), { timeout: 60000 });
if (option("--stop")) { process.kill(Number(option("--stop")), "SIGKILL"); await until("does not answer"); }
if (option("--until")) await until(option("--until"));

// The page may draw a list anew between the look for a node and the click on it.
const click = async selector => {
  await page.waitForSelector(selector, { visible: true, timeout: 60000 });
  try { await page.click(selector); } catch (error) {
    if (!/detached|not clickable|No element found/.test(error.message)) throw error;
    await click(selector);
  }
};
const steps = {
  click,
  focus: async selector => { await page.waitForSelector(selector, { visible: true, timeout: 60000 }); await page.focus(selector); },
  type: async (selector, text) => { await page.waitForSelector(selector, { visible: true, timeout: 60000 }); await page.type(selector, text); },
  key: async key => { await page.keyboard.press(key); },
  see: async text => { await page.waitForFunction(text => document.body.innerText.includes(text), { timeout: 120000 }, text); },
  gone: async selector => { await page.waitForSelector(selector, { hidden: true, timeout: 60000 }); },
};
for (const [name, ...rest] of JSON.parse(option("--steps") || "[]")) {
  try { await steps[name](...rest); } catch (error) {
    const seen = await page.evaluate(() => document.body.innerText);
    throw new Error(JSON.stringify([name, ...rest]) + ": " + error.message + "\n" + seen);
  }
}

const folded = await page.evaluate(() => document.body.innerText);
// What is folded away is looked at as well.
if (rest.includes("--expand")) await page.$$eval(".more button", buttons => buttons.map(button => button.id)).then(async ids => { for (const id of ids) await page.click("#" + id); });

const findings = [], cut = [];
await page.evaluate(axe);
for (const theme of ["light", "dark"]) {
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: theme }]);
  for (const width of WIDTHS) {
    await page.setViewport({ width, height: 900 });
    await page.evaluate(() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))));
    if (await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth)) cut.push(theme + " " + width);
    if (![320, 1280].includes(width)) continue;
    const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    for (const one of found.violations) findings.push(`${theme} ${width}: ${one.id}: ${one.nodes.slice(0, 3).map(node => node.html.slice(0, 120)).join(" | ")}`);
  }
}
await page.setViewport({ width: 1280, height: 900 });
// The state of each pipeline lies within the window, from left to right.
const states = await page.$$eval("#pipelines tbody tr td:nth-child(2)", cells => cells.map(cell => {
  const box = cell.getBoundingClientRect();
  return [cell.textContent, box.left >= 0 && box.right <= innerWidth];
}));
await page.keyboard.press("2");
const focused = await page.evaluate(() => document.activeElement.id);
const text = await page.evaluate(() => document.body.innerText);
if (option("--picture")) {
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: option("--theme") || "light" }]);
  await page.evaluate(() => { document.activeElement.blur(); scrollTo(0, 0); });
  await page.evaluate(() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))));
  await page.screenshot({ path: option("--picture"), fullPage: !rest.includes("--window") });
}
const gone = await page.evaluate(() => document.body.className);
console.log(JSON.stringify({ heading: await heading(), title: await page.title(), live: await page.$eval("#livetext", node => node.textContent), gone, states, focused, findings, cut, addresses: [...addresses], errors, folded, text }));
await browser.close();
