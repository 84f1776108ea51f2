// Runs the files of a run in this browser: agreement, latency beside the original's, step files driven live.
import * as ort from "./ort/ort.wasm.min.mjs";

ort.env.wasm.wasmPaths = new URL("./ort/", location.href).href;
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "fatal";

const SAMPLES = 60, SHORTEST_SAMPLE_MS = 5, LONGEST_MS = 8000, LIVE_PER_SECOND = 25;
const find = (id) => document.getElementById(id);
const say = (text) => { find("status").textContent = text; };
const pause = (milliseconds = 0) => new Promise((done) => setTimeout(done, milliseconds));
const quantile = (values, share) => [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(share * values.length))];
const short = (number) => Number(number.toPrecision(3)).toString();

function element(name, content = "", className = "") {
  const made = document.createElement(name);
  made.textContent = content;
  if (className) made.className = className;
  return made;
}

/** A file with the inputs of its example; `call` is one run, or one step after the other. */
async function opened(shown, file) {
  const program = await import(`./run/${shown.program}`);
  const example = await (await fetch(`run/${shown.example}`)).json();
  const model = await (program.Stream ?? program.Model).load(ort, new URL(`./run/${file}`, location.href).href);
  const inputs = example.calls.map(({ inputs }) =>
    Object.fromEntries(Object.entries(inputs).map(([name, value]) => [name, program.tensor(ort, value)])));
  let place = 0;
  const call = () => {
    const given = inputs[place++ % inputs.length];
    if (!program.Stream) return model.run(given);
    if (place % 500 === 0) model.reset(); // states that grow would fill the memory
    return model.step(given);
  };
  return { program, example, call };
}

async function mean(call, calls) {
  const start = performance.now();
  for (let count = 0; count < calls; ++count) await call();
  return (performance.now() - start) / calls;
}

/** Samples of each file, interleaved, each the mean of as many calls as the coarse clock of a page needs. */
async function timed(files, progress) {
  let calls = 1;
  for (const { call } of files) await mean(call, 3);
  while (Math.min(...await inTurn(files, calls)) * calls < SHORTEST_SAMPLE_MS && calls < 1e5) calls *= 2;
  const samples = files.map(() => []), start = performance.now();
  for (let round = 0; round < SAMPLES && (round < 5 || performance.now() - start < LONGEST_MS); ++round) {
    (await inTurn(files, calls)).forEach((value, index) => samples[index].push(Math.max(value, 1e-6)));
    progress((round + 1) / SAMPLES);
    await pause();
  }
  return { calls, samples };
}

async function inTurn(files, calls) {
  const found = [];
  for (const { call } of files) found.push(await mean(call, calls));
  return found;
}

function histogram(ours, original) {
  const every = [...ours, ...original], low = Math.min(...every), high = quantile(every, 0.98) || low + 1;
  const bins = 24, width = 320, height = 110, counts = [ours, original].map((values) => {
    const found = new Array(bins).fill(0);
    values.forEach((value) => { found[Math.max(0, Math.min(bins - 1, Math.floor((value - low) / (high - low || 1) * bins)))]++; });
    return found;
  });
  const most = Math.max(...counts.flat()), made = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  made.setAttribute("viewBox", `0 0 ${width} ${height + 18}`);
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", "Histogram of latency");
  const add = (name, attributes, text = "") => {
    const part = document.createElementNS("http://www.w3.org/2000/svg", name);
    Object.entries(attributes).forEach(([key, value]) => part.setAttribute(key, value));
    part.textContent = text;
    made.append(part);
  };
  counts.forEach((found, series) => found.forEach((count, bin) => {
    const tall = count / most * (height - 6), wide = width / bins / (original.length ? 2 : 1) - 0.8;
    const x = bin * width / bins + (series ? wide + 0.4 : 0);
    if (count) add("rect", { x, y: height - tall, width: wide, height: tall, class: series ? "original" : "ours" });
  }));
  add("text", { x: 0, y: height + 14 }, `${short(low)} ms`);
  add("text", { x: width, y: height + 14, "text-anchor": "end" }, `${short(high)} ms`);
  return made;
}

function number(value, label) {
  const made = element("div");
  made.append(element("b", value), element("span", label));
  return made;
}

async function show(shown) {
  const section = element("section");
  section.append(element("h2", shown.file));
  find("files").append(section);
  say(`${shown.file}: comparing`);
  const ours = await opened(shown, shown.file);
  const difference = await ours.program.check(ort, new URL(`./run/${shown.file}`, location.href).href, ours.example);
  section.append(element("p", `${difference < 1e-3 ? "✓ agrees" : "✗ differs"}: the largest difference from the computer's outputs is ${difference.toExponential(1)}`,
    difference < 1e-3 ? "good" : "bad"));
  const files = [ours, ...(shown.original ? [await opened(shown, shown.original)] : [])];
  const { calls, samples: [mine, before = []] } = await timed(files, (part) => say(`${shown.file}: timing, ${Math.round(100 * part)} %`));
  const numbers = element("div", "", "numbers");
  numbers.append(number(`${short(quantile(mine, 0.5))} ms`, shown.step ? "a step, median" : "a call, median"), number(`${short(quantile(mine, 0.9))} ms`, "90 % are below"));
  if (before.length) numbers.append(number(`${short(quantile(before, 0.5))} ms`, "original, median"), number(`${(quantile(before, 0.5) / quantile(mine, 0.5)).toFixed(2)}x`, "as fast as the original"));
  const key = element("p", "", "key");
  key.append(element("i", "", "ours"), "compressed");
  if (before.length) key.append(element("i", "", "original"), "original");
  section.append(numbers, histogram(mine, before), key, element("p", `${mine.length} samples, each the mean of ${calls} calls`, "muted"));
  if (shown.step) section.append(live(ours));
  const result = { file: shown.file, browser: navigator.userAgent.slice(0, 300), largest_difference: difference, calls_per_sample: calls, milliseconds: mine, original_milliseconds: before };
  const answer = await fetch("results", { method: "POST", body: JSON.stringify(result) });
  section.append(element("p", answer.ok ? "✓ sent to the computer" : `✗ not kept: ${await answer.text()}`, answer.ok ? "muted" : "bad"));
}

/** Steps at a steady pace, as a sensor gives them: what each takes, and the outputs as they come. */
function live({ call }) {
  const box = element("div", "", "live"), button = element("button", "Live"), told = element("span", `${LIVE_PER_SECOND} steps a second`, "muted"), bars = element("div", "", "bars");
  let running = false;
  button.onclick = async () => {
    running = !running;
    button.textContent = running ? "Stop" : "Live";
    let steps = 0, busy = 0;
    const begun = performance.now();
    while (running) {
      const start = performance.now(), outputs = await call();
      busy += performance.now() - start;
      steps += 1;
      const [first] = Object.values(outputs), values = Array.from(first.data, Number).slice(-12);
      while (bars.children.length < values.length) bars.append(document.createElement("meter"));
      const top = Math.max(1e-6, ...values.map(Math.abs));
      values.forEach((value, index) => { Object.assign(bars.children[index], { min: -top, max: top, value }); });
      told.textContent = `step ${steps}: ${short(busy / steps)} ms each, ${short(busy / (performance.now() - begun) * 100)} % of one core`;
      await pause(Math.max(0, begun + steps * 1000 / LIVE_PER_SECOND - performance.now()));
    }
  };
  box.append(button, told, bars);
  bars.style.width = "100%";
  return box;
}

const facts = await (await fetch("facts.json")).json();
find("title").textContent = facts.title;
find("browser").textContent = navigator.userAgent;
find("start").disabled = false;
say(`${facts.files.length === 1 ? "one file" : `${facts.files.length} files`} to run`);
find("start").onclick = async () => {
  find("start").disabled = true;
  find("files").textContent = "";
  try {
    for (const shown of facts.files) await show(shown);
    say("done");
  } catch (error) {
    say(`failed: ${error.message ?? error}`);
  }
  find("start").disabled = false;
};
