const HEIGHT = 44; // pixels of a row, so that the lines between rows need no measuring
const SHORTEST = 4; // equal nodes in a row that are put together
const fates = Object.fromEntries(data.fates.map((fate) => [fate.key, fate]));
const isSame = (row) => row.fate === "same";
const open = new Set();
let showsAll = false, items = [], itemOf = [], chosen = -1;

// Rows, and runs of equal rows that are put together: all but their ends.
function arrange() {
  items = [];
  itemOf = new Array(data.rows.length);
  for (let i = 0; i < data.rows.length; ) {
    let end = i;
    while (end < data.rows.length && isSame(data.rows[end])) end++;
    const from = i === 0 ? 0 : i + 1, to = end === data.rows.length ? end : end - 1;
    if (end > i && to - from >= SHORTEST && !showsAll && !open.has(i)) {
      for (let at = i; at < from; at++) put({ row: at });
      put({ run: [from, to], key: i });
      for (let at = to; at < end; at++) put({ row: at });
      i = end;
    } else {
      const last = Math.max(end, i + 1);
      for (; i < last; i++) put({ row: i });
    }
  }
}

function put(item) {
  const [from, to] = item.run ?? [item.row, item.row + 1];
  for (let at = from; at < to; at++) itemOf[at] = items.length;
  items.push(item);
}

function draw() {
  arrange();
  $("nodes").replaceChildren(...items.map((item) => make("li", {}, item.run ? folded(item) : node(item.row))));
  $("nodes").parentElement.querySelectorAll("svg").forEach((one) => one.remove());
  $("nodes").before(lines(0));
  $("nodes").after(lines(1));
}

function folded(item) {
  const [from, to] = item.run;
  return make("button", {
    type: "button", class: "folded", "aria-expanded": "false", text: `${shown(to - from)} equal nodes`,
    on: { click: () => {
      open.add(item.key);
      draw();
      focusOn(from);
    } },
  });
}

const side = (row, which) => (which === 0 ? row.before : row.after ?? (row.both ? row.before : undefined));

function node(i) {
  const row = data.rows[i], button = make("button", {
    type: "button", class: `node ${row.fate}`, "data-row": i, "aria-pressed": String(i === chosen),
    on: { click: () => choose(i) },
  });
  button.append(make("span", { class: "sign", "aria-hidden": "true", text: fates[row.fate].sign }),
    make("span", { class: "unseen", text: `${fates[row.fate].means}: ` }));
  for (const which of [0, 1]) {
    const text = side(row, which);
    const box = make("span", { class: text ? `box ${row.fate}` : "box none" });
    if (text) {
      const told = which === 1 && row.changes ? row.changes.join("; ") : text[1];
      box.append(make("strong", { text: text[0] }), " ", make("span", { class: "small", text: told }));
    }
    button.append(box);
  }
  return button;
}

// What a node reads that does not stand right above it: a curve beside the rows of its graph.
function lines(which) {
  const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg");
  svg.setAttribute("class", which ? "lines right" : "lines left");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("height", items.length * HEIGHT);
  svg.setAttribute("viewBox", `0 0 36 ${items.length * HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  const known = new Set(), path = [];
  data.rows.forEach((row, i) => {
    for (const from of row.reads[which]) {
      const [one, two] = [itemOf[from], itemOf[i]];
      if (two - one < 2 || known.has(one * items.length + two)) continue;
      known.add(one * items.length + two);
      const bend = Math.min(34, 6 + 5 * Math.log2(two - one)), at = (item) => item * HEIGHT + HEIGHT / 2;
      const [edge, out] = which ? [0, bend] : [36, 36 - bend];
      path.push(`M${edge} ${at(one)}C${out} ${at(one)} ${out} ${at(two)} ${edge} ${at(two)}`);
    }
  });
  const drawn = document.createElementNS(space, "path");
  drawn.setAttribute("d", path.join(""));
  svg.append(drawn);
  return svg;
}

function choose(i) {
  chosen = i;
  document.querySelectorAll("[data-row]").forEach((one) => {
    one.setAttribute("aria-pressed", String(Number(one.dataset.row) === i));
  });
  const row = data.rows[i], about = [make("strong", { text: fates[row.fate].means })];
  for (const which of [0, 1]) {
    const text = side(row, which);
    if (!text) continue;
    const [operator, name, stored] = text;
    about.push(make("p", {}, make("span", { class: "small", text: which ? "after: " : "before: " }),
      make("strong", { text: operator }), ` ${name}`, make("span", { class: "small", text: stored ? ` (${stored})` : "" })));
  }
  if (row.changes) about.push(make("ul", {}, ...row.changes.map((text) => make("li", { text }))));
  if (row.partner !== undefined) {
    about.push(make("button", { type: "button", text: "where it stands in the other graph",
      on: { click: () => focusOn(row.partner) } }));
  }
  $("about").replaceChildren(...about);
}

function focusOn(i) {
  if (items[itemOf[i]].run) {
    open.add(items[itemOf[i]].key);
    draw();
  }
  choose(i);
  const found = document.querySelector(`[data-row="${i}"]`);
  found.focus({ preventScroll: true });
  found.scrollIntoView({ block: "center" });
}

const changes = data.rows.flatMap((row, i) => (isSame(row) ? [] : [i]));

function go(by, wanted = () => true) {
  const fitting = changes.filter((i) => wanted(data.rows[i]));
  if (!fitting.length) return;
  const next = by > 0 ? fitting.find((i) => i > chosen) : fitting.filter((i) => i < chosen).at(-1);
  focusOn(next ?? (by > 0 ? fitting[0] : fitting.at(-1)));
}

for (const fate of data.fates) {
  const count = data.rows.filter((row) => row.fate === fate.key).length;
  const button = make("button", { type: "button", class: `box ${fate.key}`, text: `${fate.sign} ${fate.means}: ${shown(count)}`,
    on: { click: () => go(1, (row) => row.fate === fate.key) } });
  button.disabled = !count || fate.key === "same";
  $("legend").append(button);
}
$("one").textContent = data.models[0];
$("two").textContent = data.models[1];
$("where").textContent = changes.length ? `${shown(changes.length)} of ${shown(data.rows.length)} rows changed`
  : `all ${shown(data.rows.length)} nodes are the same`;
$("previous").disabled = $("next").disabled = !changes.length;
$("previous").addEventListener("click", () => go(-1));
$("next").addEventListener("click", () => go(1));
$("all").addEventListener("click", () => {
  showsAll = !showsAll;
  open.clear();
  $("all").setAttribute("aria-pressed", String(showsAll));
  draw();
});
$("nodes").addEventListener("keydown", (event) => {
  const by = { ArrowDown: 1, ArrowUp: -1 }[event.key], here = event.target.closest("li");
  const next = by && (by > 0 ? here?.nextElementSibling : here?.previousElementSibling);
  if (!next) return;
  event.preventDefault();
  next.querySelector("button").focus();
});
onPrint(() => {}, () => {});
draw();
