// Draws one loss beside bce. `curves` and `losses` are printed above, from the curves of the library.

const FAR = 40; // as lopsided.losses.closed_form: beyond, slopes may underflow
const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
const sigmoid = (x) => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));

const sum = (values) => values.reduce((total, value) => total + value, 0);
const mean = (values) => sum(values) / values.length;
function logSum(values) {
  const peak = Math.max(...values);
  return peak + Math.log(sum(values.map((value) => Math.exp(value - peak))));
}

// How often labels are positive, of losses that are made from that: 1, 2, 5, 10, ...
const STEPS = Array.from({ length: 19 }, (_, step) => [1, 2, 5][step % 3] * 10 ** Math.floor(step / 3));
const COUNTS = [
  { name: "count", text: "positives of the label", default: 50, low: 1, high: 1e6, steps: STEPS },
  { name: "other", text: "of another label", default: 500, low: 1, high: 1e6, steps: STEPS },
  { name: "rows", text: "training rows", default: 1000, low: 1, high: 1e6, steps: STEPS },
];
const usual = (controls) => Object.fromEntries(controls.map((control) => [control.name, control.default]));

// A coupled loss has more logits than one: the label is drawn beside these.
const OTHERS = { positive: [1], negative: [-2, -1, 0] };

// How labels become one number. own: the curve of the label, mine: of others of its kind, theirs: of those of the other
// kind; p and q: their powers. Returns the value and its derivative by own.
function pairs(own, mine, theirs, p, q) {
  const side = logSum([own, ...mine]);
  const x = p * side + q * logSum(theirs);
  return [softplus(x), p * sigmoid(x) * Math.exp(own - side)];
}
const reachOf = (value, margin) => (margin ? Math.max(margin + value, 0) : 1);
function weightedMean(values, margin) {
  const total = sum(values.map((value) => reachOf(value, margin)));
  const costs = sum(values.map((value) => reachOf(value, margin) * softplus(value)));
  return [total ? costs / total : 0, total];
}
function clipped(value, clip) {
  const [p, q] = [sigmoid(value), sigmoid(-value)];
  if (!clip) return [softplus(value), p];
  return p > clip ? [-Math.log1p(clip - p), (p * q) / (q + clip)] : [0, 0];
}
const pools = {
  Sum: (own) => [own, 1],
  Pairs: pairs,
  TwoWayPairs: pairs,
  LogSumExp(own, mine, theirs) {
    const side = logSum([own, ...mine]);
    return [softplus(side) + softplus(logSum(theirs)), sigmoid(side) * Math.exp(own - side)];
  },
  MeanPairs(own, mine, theirs) {
    const other = mean(theirs.map(Math.exp));
    return [mean([own, ...mine].map(Math.exp)) * other, (Math.exp(own) / (mine.length + 1)) * other];
  },
  Softmax(own, mine, theirs, p, q, isPositive) {
    const all = logSum([own, ...mine, ...theirs]);
    const positives = isPositive ? [own, ...mine] : theirs;
    return [all - mean(positives), Math.exp(own - all) - (isPositive ? 1 / positives.length : 0)];
  },
  ThresholdSoftmax(own, mine, theirs, p, q, isPositive) {
    const [positives, negatives] = isPositive ? [[own, ...mine], theirs] : [theirs, [own, ...mine]];
    const [up, down] = [logSum(positives.map((value) => -value)), logSum(negatives)];
    const value = sum(positives) + positives.length * softplus(up) + softplus(down);
    const pulled = positives.length * sigmoid(up) * Math.exp(-own - up);
    return [value, isPositive ? 1 - pulled : sigmoid(down) * Math.exp(own - down)];
  },
  DecoupledSoftmax(own, mine, theirs, p, q, isPositive) {
    const [positives, negatives] = isPositive ? [[own, ...mine], theirs] : [theirs, [own, ...mine]];
    const side = logSum(negatives);
    const missed = positives.map((value) => side + value);
    const pulled = mean(missed.map(sigmoid)) * Math.exp(own - side);
    return [mean(missed.map(softplus)), isPositive ? sigmoid(side + own) / positives.length : pulled];
  },
  NoneClass(own, mine, theirs, clip, same, isPositive) {
    const [positives, negatives] = isPositive ? [[own, ...mine], theirs] : [theirs, [own, ...mine]];
    const logits = [...positives.map((value) => -value), ...negatives];
    const middle = mean(logits);
    const [none, slope] = positives.length ? clipped(-middle, clip).map((each, place) => (place ? -each : each))
      : [softplus(middle), sigmoid(middle)];
    const costs = sum(positives.map(softplus)) + sum(negatives.map((value) => clipped(value, clip)[0]));
    const alone = isPositive ? sigmoid(own) : clipped(own, clip)[1];
    return [costs + none, alone + ((isPositive ? -1 : 1) * slope) / logits.length];
  },
  SideMeans(own, mine, theirs, margin) {
    const [value, total] = weightedMean([own, ...mine], margin);
    const reach = reachOf(own, margin);
    const slope = reach * sigmoid(own) + (margin && reach ? softplus(own) - value : 0);
    return [value + weightedMean(theirs, margin)[0], total ? slope / total : 0];
  },
};

const isWeighted = ({ alone, pool }) => alone || pool === "LogSumExp"; // losses that are drawn with a pos_weight

/** Its settings, with lists filled up with 1 / m, which the coefficients of a list are beyond its end. */
function filled(loss, settings) {
  const lists = loss.controls.filter(({ name, length }) => length && settings[name]);
  const all = ({ name, length }) => Array.from({ length }, (_, order) => settings[name][order] ?? 1 / (order + 1));
  return { ...settings, ...Object.fromEntries(lists.map((list) => [list.name, all(list)])) };
}

/**
 * What label counts do to the logit and the weight of a label. count: its positives, of so many rows. other: those of
 * the one other label that there is, which each row has.
 */
function fromCounts({ kappa, margin, scale, beta, alpha, steepness, middle }, { count, other, rows }) {
  const [n, m] = [count, other].map((each) => Math.min(Math.max(each, 1), Math.max(rows - 1, 1)));
  const offset = rows > 1 ? -kappa * Math.log(rows / n - 1) : 0;
  const push = margin * (Math.min(n, m) / n) ** 0.25;
  const share = (isPositive) => 1 / n / (1 / m + (isPositive ? 1 / n : 0));
  return {
    scale,
    turned: (z, isPositive) => scale * (z + offset - (isPositive ? push : 0)),
    before: (z) => z / scale - offset,
    weight: (isPositive) =>
      alpha === undefined ? (1 - beta) / (1 - beta ** n) : alpha + sigmoid(steepness * (share(isPositive) - middle)),
    isClosed: alpha === undefined && !margin, // does a score alone tell the probability?
  };
}
const AS_IT_IS = { scale: 1, turned: (z) => z, before: (z) => z, weight: () => 1, isClosed: true };

/** A loss with its settings: the two curves, what a label costs, what a score stands for. */
function make(name, given, weight = 1, seen = usual(COUNTS)) {
  const loss = losses[name];
  const settings = filled(loss, given);
  const key = loss.deciding.filter((each) => settings[each]).join();
  const [positive, negative] = loss.variants[key].map((place) => (z) => curves[place](z, settings));
  const powers = loss.powers(settings);
  const counts = loss.counted ? fromCounts(loss.counted(settings), seen) : AS_IT_IS;

  const shift = loss.alone ? 0 : Math.log(weight); // weights of a log-sum-exp stand in the exponent
  const beside = {
    positive: OTHERS.positive.map((z) => positive(z)[0] + shift),
    negative: OTHERS.negative.map((z) => negative(z)[0]),
  };

  function cost(logit, isPositive) {
    const z = counts.turned(logit, isPositive);
    const [own, mine, theirs, p, q] = isPositive
      ? [positive(z), beside.positive, beside.negative, ...powers]
      : [negative(z), beside.negative, beside.positive, ...powers.toReversed()];
    const [value, factor] = pools[loss.pool](own[0] + (isPositive ? shift : 0), mine, theirs, p, q, isPositive);
    const times = (loss.alone && isPositive ? weight : 1) * counts.weight(isPositive);
    return { value: times * value, gradient: times * factor * own[1] * counts.scale };
  }

  function slopes(z) {
    const held = Math.min(Math.max(z, -FAR), FAR);
    return [negative(held)[1], -weight * positive(held)[1]];
  }

  function posterior(z) {
    const [rise, fall] = slopes(counts.turned(z, false));
    return rise / (rise + fall);
  }

  const passed = (z, odds) => {
    const [rise, fall] = slopes(z);
    return loss.alone ? rise >= odds * fall : negative(z)[0] >= positive(z)[0] + shift;
  };

  /** The logit from which on a label is more probable than eta; Infinity where there is none. */
  function threshold(eta) {
    const odds = eta / (1 - eta);
    let [low, high] = loss.alone ? [-FAR, FAR] : [-1e4, 1e4];
    if (!passed(high, odds)) return Infinity;
    for (let step = 0; step < 80; step++) {
      const middle = (low + high) / 2;
      if (passed(middle, odds)) high = middle;
      else low = middle;
    }
    return counts.before(Math.round(high * 1e12) / 1e12 + 0); // the rounding of the slopes; + 0 turns -0 into 0
  }

  /** Does a more probable label always get a higher score? */
  function oneToOne() {
    let before = 0;
    for (let step = -2000; step <= 2000; step++) {
      const now = posterior(counts.before((FAR * step) / 2000));
      if (now === before && now > 0.01 && now < 0.99 && Math.abs(step) < 500) return false; // level, not by rounding
      if (now - before < -1e-9 || now > 1 + 1e-9) return false; // above 1 where both slopes do not push apart
      before = now;
    }
    return true;
  }

  /** Is a label pushed the wrong way somewhere, as lopsided refuses unless monotone=False? */
  function isRefused() {
    if (settings.monotone !== true) return false;
    const limit = (p, gamma) => 1e-9 * p ** (1 + gamma);
    for (let z = -25; z <= 25; z += 0.01) {
      if (positive(z)[1] > limit(sigmoid(-z), settings.gamma_pos)) return true;
      if (-negative(z)[1] > limit(sigmoid(z), settings.gamma_neg)) return true;
    }
    return false;
  }

  const judged = loss.alone && counts.isClosed && oneToOne(); // is there a probability for each score?
  const thresholded = loss.alone ? judged : loss.thresholded;
  return { cost, isRefused, isClosed: counts.isClosed, posterior: judged ? posterior : null, threshold: thresholded ? threshold : null };
}

// ---- what is shown, and the link that holds it

const page = document.getElementById("loss-page");
const find = (part) => page.querySelector(`[data-part=${part}]`);
const VIEW = [
  { name: "eta", text: "decide at probability", default: 0.5, low: 0.05, high: 0.95, step: 0.05 },
  { name: "z", text: "read at logit", default: 0, low: -8, high: 8, step: 0.1 },
];
const WEIGHT = { name: "pos_weight", default: 1, low: 0.1, high: 20, step: 0.1 };
let state = {};

function within({ low, high }, value) {
  return Math.min(Math.max(value, low), high);
}

/** The numbers in a text such as "1, 0.5" or "(1, 0.5)"; null if there is anything else in it, none, or too many. */
function numbers(text, most) {
  const parts = text.replace(/^\(|,?\s*\)$/g, "").split(",");
  const found = parts.map((part) => (part.trim() === "" ? NaN : Number(part)));
  return found.length <= most && found.every(Number.isFinite) ? found : null;
}

function read(link) {
  const given = new URLSearchParams(link.replace(/^#/, ""));
  const name = Object.hasOwn(losses, given.get("loss") ?? "") ? given.get("loss") : "asl";
  const value = (control) => {
    const text = given.get(control.name);
    if (text === null || text.trim() === "") return control.default;
    if (typeof control.default === "boolean") return text === "True";
    if (control.default === null && text === "None") return null;
    if (control.length) return numbers(text, control.length) ?? control.default;
    return Number.isFinite(Number(text)) ? within(control, Number(text)) : control.default;
  };
  const settings = Object.fromEntries(losses[name].controls.map((control) => [control.name, value(control)]));
  const weight = isWeighted(losses[name]) ? value(WEIGHT) : WEIGHT.default;
  const counts = losses[name].counted ? COUNTS.map((control) => [control.name, Math.round(value(control))]) : [];
  const view = VIEW.map((control) => [control.name, value(control)]);
  return { name, settings, pos_weight: weight, ...usual(COUNTS), ...Object.fromEntries([...counts, ...view]) };
}

function spoken(value) {
  if (Array.isArray(value)) return `(${value.join(", ")}${value.length === 1 ? "," : ""})`;
  return value === true ? "True" : value === false ? "False" : value === null ? "None" : String(value);
}

/** The settings that count: those in whose place a list is given do not. */
function counting() {
  const { controls } = losses[state.name];
  const replaced = controls.filter(({ name, length }) => length && state.settings[name]).flatMap((list) => list.replaces);
  return controls.filter(({ name }) => !replaced.includes(name));
}

function link() {
  const parts = [["loss", state.name]];
  const add = (controls, values) => {
    for (const { name, default: usual } of controls) {
      if (values[name] !== usual) parts.push([name, spoken(values[name]).replaceAll(" ", "")]);
    }
  };
  add(counting(), state.settings);
  add([...COUNTS, ...VIEW, WEIGHT], state);
  return "#" + parts.map((part) => part.join("=")).join("&");
}

function spec() {
  const changed = counting().filter((each) => state.settings[each.name] !== each.default);
  const settings = changed.map((each) => `${each.name}=${spoken(state.settings[each.name])}`).join(", ");
  const weight = state.pos_weight === 1 ? "" : `, pos_weight=torch.full((L,), ${spoken(state.pos_weight)})`;
  const called = `"${settings ? `${state.name}(${settings})` : state.name}"`;
  if (!losses[state.name].counted) return `lopsided.loss(${called}${weight})`;
  return `lopsided.BalancedLoss(${called}, torch.tensor([${state.count}, ${state.other}]), rows=${state.rows}${weight})`;
}

// ---- controls

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function slider(control, values, shown) {
  const input = element("input", { type: "range", min: control.low, max: control.high, step: control.step });
  const number = element("output");
  const { steps } = control;
  const tell = () => {
    number.textContent = spoken(values[control.name]);
    if (steps) input.setAttribute("aria-valuetext", number.textContent);
  };
  if (steps) Object.assign(input, { min: 0, max: steps.length - 1, step: 1 });
  input.value = steps ? steps.findLastIndex((each) => each <= values[control.name]) : values[control.name];
  tell();
  input.addEventListener("input", () => {
    values[control.name] = steps ? steps[input.value] : Number(input.value);
    tell();
    changed();
  });
  return element("label", { class: "slider" }, element("span", {}, shown ?? control.name), input, number);
}

function flag(control, values, text, on, off) {
  const input = element("input", { type: "checkbox" });
  input.checked = values[control.name] !== off;
  input.addEventListener("change", () => {
    values[control.name] = input.checked ? on : off;
    showControls(control.name);
    changed();
  });
  return element("label", { class: "flag" }, input, element("span", {}, text));
}

/** A field for a list of numbers; what cannot be read changes nothing. */
function list(control, values) {
  const input = element("input", { type: "text", inputmode: "text", placeholder: "none; or 1, 0.5", autocomplete: "off" });
  input.value = values[control.name]?.join(", ") ?? "";
  input.addEventListener("input", () => {
    const found = numbers(input.value, control.length);
    const isWrong = found === null && input.value.trim() !== "";
    input.setAttribute("aria-invalid", isWrong);
    if (isWrong) return;
    values[control.name] = found;
    hideReplaced();
    changed();
  });
  return element("label", { class: "list" }, element("span", {}, `${control.name}, at most ${control.length}`), input);
}

function hideReplaced() {
  const shown = counting().map(({ name }) => name);
  for (const each of find("settings").children) each.hidden = Boolean(each.dataset.of) && !shown.includes(each.dataset.of);
}

function rows(control) {
  const values = state.settings;
  if (control.length) return [list(control, values)];
  if (typeof control.default === "boolean") return [flag(control, values, control.name, true, false)];
  if (control.default !== null) return [slider(control, values)];
  const made = [flag(control, values, `with ${control.name}`, 0.25, null)];
  return values[control.name] === null ? made : [...made, slider(control, values)];
}

function showControls(focused) {
  find("loss").value = state.name;
  const { controls } = losses[state.name];
  const made = controls.map((control) => [control.name, rows(control)]);
  for (const [name, each] of made) for (const row of each) row.dataset.of = name;
  const weight = isWeighted(losses[state.name]) ? [slider(WEIGHT, state)] : [];
  const counts = losses[state.name].counted ? COUNTS.map((control) => slider(control, state, control.text)) : [];
  const all = [...made.flatMap(([, each]) => each), ...weight, ...counts];
  find("settings").replaceChildren(...(all.length ? all : ["Nothing to set."]));
  hideReplaced();
  find("view").replaceChildren(...VIEW.map((control) => slider(control, state, control.text)));
  made.find(([name]) => name === focused)?.[1][0].querySelector("input").focus();
}

// ---- drawings

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [340, 220, 34, 8, 8, 26];
const [ACROSS, UP] = [WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM];
const LOGITS = Array.from({ length: 321 }, (_, step) => -8 + step / 20);

function drawing(title, low, high, lines, marks) {
  const x = (z) => (((z + 8) / 16) * ACROSS).toFixed(2);
  const y = (value) => ((1 - (Math.min(Math.max(value, 2 * low - high), 2 * high - low) - low) / (high - low)) * UP).toFixed(2);
  const beside = [0, 1, 2, 3, 4].map((quarter) => {
    const value = low + ((high - low) * quarter) / 4;
    return `<text x="${LEFT - 5}" y="${TOP + 4 + Number(y(value))}" text-anchor="end">${Number(value.toFixed(2))}</text>`;
  });
  const below = [-8, -4, 0, 4, 8].map(
    (z) => `<text x="${LEFT + Number(x(z))}" y="${HEIGHT - 8}" text-anchor="${z === 8 ? "end" : "middle"}">${z}</text>`,
  );
  const grid = [0, 1, 2, 3, 4].map((quarter) => `<path class="grid" d="M0 ${(UP * quarter) / 4}H${ACROSS}"/>`);
  const ruled = marks.map(({ at, kind }) => `<path class="${kind}" d="M${x(at)} 0V${UP}"/>`);
  const drawn = lines.map(({ kind, of }) => `<path class="${kind}" d="M${LOGITS.map((z) => `${x(z)} ${y(of(z))}`).join("L")}"/>`);
  const inside = [...grid, ...ruled, ...drawn].join("");
  return (
    `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${title}, against the logit">` +
    `<svg x="${LEFT}" y="${TOP}" width="${ACROSS}" height="${UP}">${inside}</svg>${beside.join("")}${below.join("")}</svg>`
  );
}

function sides(loss, what, beside) {
  return [true, false].map((isPositive) => ({
    kind: `${isPositive ? "positive" : "negative"}${beside}`,
    of: (z) => what(loss.cost(z, isPositive)),
  }));
}

function draw() {
  const loss = make(state.name, state.settings, state.pos_weight, state);
  const bce = make("bce", {});
  const own = loss.threshold?.(state.eta) ?? null;
  const marks = [{ at: state.z, kind: "cursor" }, ...(Number.isFinite(own ?? NaN) ? [{ at: own, kind: "mark" }] : [])];
  const value = (cost) => cost.value;
  const size = (cost) => Math.abs(cost.gradient);
  const all = LOGITS.flatMap((z) => [loss.cost(z, true), loss.cost(z, false)]);
  const lowest = Math.floor(Math.min(0, ...all.map(value)));
  const largest = Math.min(Math.max(1, Math.ceil(Math.max(...all.map(size)) - 1e-9)), 4);
  const show = (part, ...rest) => (find(part).innerHTML = drawing(...rest, marks));
  show("value", "what a label costs", lowest, 8, [...sides(bce, value, " bce"), ...sides(loss, value, "")]);
  show("gradient", "size of the gradient", 0, largest, [...sides(bce, size, " bce"), ...sides(loss, size, "")]);
  const maps = [{ kind: "posterior bce", of: bce.posterior }, { kind: "posterior", of: loss.posterior }];
  show("posterior", "probability that a score stands for", 0, 1, maps.filter(({ of }) => of));
  tell(loss, bce, own);
}

function tell(loss, bce, own) {
  const number = (value) => (value === null ? "–" : Number.isFinite(value) ? value.toFixed(3) : "none");
  const { other, source } = losses[state.name];
  const at = (each, isPositive) => each.cost(state.z, isPositive);
  const lines = [
    ["a positive costs", at(loss, true).value, at(bce, true).value],
    ["its gradient", at(loss, true).gradient, at(bce, true).gradient],
    [`${other} costs`, at(loss, false).value, at(bce, false).value],
    ["its gradient", at(loss, false).gradient, at(bce, false).gradient],
    ["probability", loss.posterior?.(state.z) ?? null, bce.posterior(state.z)],
    ["decided from logit", own, bce.threshold(state.eta)],
  ];
  const head = element("tr", {}, ...["", state.name, "bce"].map((text) => element("th", { scope: "col" }, text)));
  const cells = ([name, ...values]) => [
    element("th", { scope: "row" }, name), ...values.map((value) => element("td", {}, number(value))),
  ];
  const body = lines.map((line) => element("tr", {}, ...cells(line)));
  find("numbers").replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
  find("spec").textContent = spec();
  find("source").textContent = source;
  find("other").textContent = other;
  find("note").textContent = note(loss, own);
}

function note(loss, own) {
  const { alone, thresholded, counted } = losses[state.name];
  const beside = `The labels of a row are coupled: drawn is what the row costs, in which there are also a positive at logit
    ${OTHERS.positive} and negatives at ${OTHERS.negative.join(", ")}.`;
  if (!alone && thresholded) return `${beside} No closed form gives probabilities.`;
  if (!alone) return `${beside} The loss only ranks them: it has no threshold.`;
  const before = counted ? told() : "";
  if (counted && !loss.isClosed) return `${before}The cost depends on the truth of its row, so no probability follows from a score.`;
  if (loss.isRefused())
    return "A label is pushed the wrong way at some logits: lopsided refuses these settings unless monotone=False.";
  if (!loss.posterior) return "A more probable label does not always get a higher score: tune a threshold on validation rows.";
  if (own === Infinity) return "No logit stands for a probability that high: tune a threshold on validation rows.";
  return before;
}

/** What is drawn of a loss that is made from counts. */
function told() {
  const most = Math.max(state.count, state.other);
  if (most > state.rows) return "More positives than rows, which lopsided refuses: drawn are labels that all rows have but one. ";
  return `The row has the other label.${most === state.rows ? " One that all rows have counts as if one had it not." : ""} `;
}

function open(link) {
  state = read(link);
  showControls();
  draw();
}

function changed() {
  draw();
  history.replaceState(null, "", link());
}

function begin(name) {
  state = { ...read(`#loss=${name}`), eta: state.eta, z: state.z };
  showControls();
  changed();
}

find("loss").replaceChildren(...Object.keys(losses).map((name) => element("option", {}, name)));
find("loss").addEventListener("change", (event) => begin(event.target.value));
find("reset").addEventListener("click", () => begin(state.name));
addEventListener("hashchange", () => location.hash.startsWith("#loss=") && open(location.hash));
globalThis.lopsided = { make };
page.hidden = false;
open(location.hash.startsWith("#loss=") ? location.hash : page.dataset.start);
