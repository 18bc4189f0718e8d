const size = data.names.length;
const combined = data.places.slice(0, data.combined);
const columnOf = Object.fromEntries(data.columns.map((column) => [column.key, column.values]));
const isPlace = (key) => key.startsWith("place:");
const heads = [
  ...combined.map((of, i) => ({ key: `place:${i}`, title: of.title, values: of.values })),
  { key: "model", title: "model", values: data.names },
  ...data.columns.slice(0, 1),
  { key: "status", title: "status", values: data.status.map((i) => data.statuses[i]) },
  ...data.columns.slice(1),
];
const searched = data.names.map((name, i) =>
  `${name}\n${data.remarks[i].map((at) => data.texts[at]).join("\n")}`.toLowerCase());
const state = {
  sort: combined.length ? "place:0" : "score", descending: !combined.length,
  hidden: new Set(), text: "", order: "", page: 0, chosen: -1,
};
let rows = [], shows = new Uint8Array(size).fill(1), drawings = [], printing = false;

function select() {
  const orders = columnOf.order;
  rows = [];
  for (let i = 0; i < size; i++) {
    shows[i] = !state.hidden.has(data.status[i]) && searched[i].includes(state.text)
      && (state.order === "" || String(orders[i]) === state.order);
    if (shows[i]) rows.push(i);
  }
  const { values } = heads.find((head) => head.key === state.sort);
  const sign = state.descending ? -1 : 1;
  const compare = typeof values.find((value) => value !== null) === "string"
    ? new Intl.Collator("en", { numeric: true }).compare : (a, b) => a - b;
  rows.sort((a, b) => {
    const one = values[a], two = values[b];
    if (one === null || two === null) return (one === null) - (two === null) || a - b; // what lacks it is last
    return sign * compare(one, two) || a - b;
  });
}

function update({ stay = false } = {}) {
  select();
  if (!stay) state.page = 0;
  drawTable();
  redraw();
}

const perPage = () => (printing ? 1000 : Number($("rows").value));

function drawTable() {
  const pages = Math.max(1, Math.ceil(rows.length / perPage()));
  state.page = Math.min(state.page, pages - 1);
  const first = state.page * perPage(), shownRows = rows.slice(first, first + perPage());
  $("head").replaceChildren(...heads.map(headCell));
  $("body").replaceChildren(...shownRows.flatMap((i) => (i === state.chosen ? [row(i), details(i)] : [row(i)])));
  $("previous").disabled = state.page === 0;
  $("next").disabled = state.page >= pages - 1;
  $("where").textContent = rows.length
    ? `${shown(first + 1)} to ${shown(first + shownRows.length)} of ${shown(rows.length)}`
      + (rows.length < size ? `, of ${shown(size)} in all` : "")
    : "no model passes the filters";
  const lacking = rows.length - shownRows.length;
  $("left-out").textContent = printing && lacking ? `${shown(lacking)} more models are left out on paper.` : "";
}

function headCell(head) {
  const isSorted = head.key === state.sort;
  const button = make("button", { type: "button", class: "sort", text: head.title, on: { click: () => sortBy(head) } });
  if (isSorted) button.append(make("span", { "aria-hidden": "true", text: state.descending ? " ▼" : " ▲" }));
  return make("th", {
    scope: "col", "data-key": head.key, class: ["model", "status"].includes(head.key) ? "text" : null,
    "aria-sort": isSorted ? (state.descending ? "descending" : "ascending") : null,
  }, button);
}

function sortBy(head) {
  const goesUp = isPlace(head.key) || ["model", "status", "seconds", "order"].includes(head.key);
  state.descending = state.sort === head.key ? !state.descending : !goesUp;
  state.sort = head.key;
  state.page = 0;
  select();
  drawTable();
  $("head").querySelector(`[data-key="${CSS.escape(head.key)}"] button`).focus();
}

function row(i) {
  const isOpen = i === state.chosen;
  const button = make("button", {
    type: "button", class: "open", text: data.names[i], "aria-expanded": String(isOpen),
    "aria-controls": isOpen ? "details" : null,
  });
  return make("tr", { "data-index": i, class: isOpen ? "chosen" : null }, ...heads.map((head) => {
    if (head.key === "model") return make("th", { scope: "row", class: "name" }, button);
    const value = head.values[i];
    const look = head.key === "status" ? `text ${["ok", "error"].includes(value) ? value : "doubt"}` : null;
    return make("td", { class: look, text: head.key === "score" && value !== null ? value.toFixed(6) : shown(value) });
  }));
}

function details(i) {
  const inside = make("div", { class: "details", id: "details", role: "region", "aria-label": `Details of ${data.names[i]}` });
  const remarks = data.remarks[i].map((at) => make("li", { text: data.texts[at] }));
  if (remarks.length) inside.append(make("ul", {}, ...remarks));
  const list = make("dl");
  const entry = (title, text) => list.append(make("div", {}, make("dt", { text: title }), make("dd", { text })));
  for (const of of data.places) if (of.values[i] !== null) entry(`place by ${of.title}`, shown(of.values[i]));
  for (const line of data.texts[data.settings[i]].split("\n").filter(Boolean)) entry(...line.split("\t"));
  inside.append(list);
  return make("tr", { class: "opened" }, make("td", { colspan: heads.length, class: "why" }, inside));
}

function toggle(i) {
  state.chosen = state.chosen === i ? -1 : i;
  drawTable();
  redraw();
  $("body").querySelector(`[data-index="${i}"] button`)?.focus({ preventScroll: true });
}

// A model that was chosen in a picture is shown in the table, whatever the page.
function choose(i) {
  state.chosen = i;
  state.page = Math.max(0, Math.floor(rows.indexOf(i) / perPage()));
  drawTable();
  redraw();
  const found = $("body").querySelector(`[data-index="${i}"] button`);
  found?.focus({ preventScroll: true });
  found?.scrollIntoView({ block: "center" });
}

const redraw = () => drawings.forEach((draw) => draw());

function hues() {
  const orders = columnOf.order ?? [], known = [...new Set(orders.filter((one) => one !== null))].sort((a, b) => a - b);
  const hue = new Map(known.map((one, i) => [one, known.length > HUES.length && i >= HUES.length - 1 ? null : HUES[i]]));
  return {
    known: known.length > 1 ? known : [], hue,
    of: (i) => (known.length > 1 ? hue.get(orders[i]) ?? colour("--faint") : colour("--accent")),
  };
}

function drawCharts() {
  const { across, up, said } = data.charts;
  $("panels").replaceChildren();
  drawings = [];
  if (across.length && up.length) {
    $("charts").hidden = false;
    const key = $("up").value, { known, hue, of } = hues();
    const titles = Object.fromEntries(data.columns.map((column) => [column.key, column.title]));
    for (const x of across) {
      const figure = make("figure"), tip = make("p", { class: "tip onscreen", "aria-hidden": "true" });
      $("panels").append(figure);
      const label = `${titles[key]} against ${titles[x]}`, text = said[`${key} ${x}`];
      figure.append(make("figcaption", {}, make("strong", { text: label }), make("br"), text));
      drawings.push(scatter(figure, `${label}. ${text}`, {
        x: columnOf[x], y: columnOf[key], hueOf: of, shows: (i) => shows[i], chosen: () => state.chosen, choose,
        tell: (i) => {
          tip.textContent = i < 0 ? "" : `${data.names[i]}: ${shown(columnOf[key][i])} at ${shown(columnOf[x][i])}`;
        },
      }));
      figure.append(tip);
    }
    if (known.length) {
      const legend = make("p", { class: "legend note" }, "Order: ");
      const named = known.filter((one) => hue.get(one)), rest = known.length - named.length;
      for (const [text, fill] of [...named.map((one) => [shown(one), hue.get(one)]),
        ...(rest ? [["others", null]] : [])]) {
        const dot = make("span", { class: "dot", "aria-hidden": "true" });
        dot.style.background = fill ?? "var(--faint)";
        legend.append(make("span", {}, dot, text), " ");
      }
      $("panels").append(legend);
    }
  }
  if (data.places.length > 1 && size > 1) {
    $("ranks").hidden = false;
    const titles = data.places.map((of) => of.title), tip = make("span", { class: "onscreen" });
    $("ranks-wide").replaceChildren();
    $("ranks-said").replaceChildren(`Each line is a model, at its place by each score, 1 on top; the ten best by `
      + `${titles[0]} are in colour. `, tip);
    drawings.push(threads($("ranks-wide"), `Places of ${shown(size)} models by ${titles.join("; ")}`, {
      titles, places: data.places.map((of) => of.values), names: data.names, shows: (i) => shows[i],
      chosen: () => state.chosen, choose,
      tell: (i) => {
        tip.textContent = i < 0 ? ""
          : `${data.names[i]}: ${data.places.map((of) => `${shown(of.values[i]) || "none"} by ${of.title}`).join(", ")}`;
      },
    }));
  }
}

for (const [i, status] of data.statuses.entries()) {
  const count = data.status.filter((one) => one === i).length;
  const button = make("button", { type: "button", "aria-pressed": "true", text: `${status} ${shown(count)}` });
  button.addEventListener("click", () => {
    if (!state.hidden.delete(i)) state.hidden.add(i);
    button.setAttribute("aria-pressed", String(!state.hidden.has(i)));
    update();
  });
  $("statuses").append(button);
}
const orders = [...new Set((columnOf.order ?? []).filter((one) => one !== null))].sort((a, b) => a - b);
if (orders.length > 1) {
  $("orders").hidden = false;
  $("order").append(make("option", { value: "", text: "all" }),
    ...orders.map((one) => make("option", { value: String(one), text: shown(one) })));
  $("order").addEventListener("change", () => {
    state.order = $("order").value;
    update();
  });
}
if ($("up")) {
  for (const key of data.charts.up) {
    $("up").append(make("option", { value: key, text: data.columns.find((column) => column.key === key).title }));
  }
  $("up").addEventListener("change", () => {
    drawCharts();
    redraw();
  });
}
$("find").addEventListener("input", () => {
  state.text = $("find").value.toLowerCase();
  update();
});
$("rows").addEventListener("change", () => update());
for (const [id, by] of [["previous", -1], ["next", 1]]) {
  $(id).addEventListener("click", () => {
    state.page += by;
    drawTable();
  });
}
$("body").addEventListener("click", (event) => {
  const found = event.target.closest("tr[data-index]");
  if (found && !getSelection().toString()) toggle(Number(found.dataset.index));
});
addEventListener("resize", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
onPrint(() => {
  printing = true;
  update({ stay: false });
}, () => {
  printing = false;
  update();
});
drawCharts();
update();
