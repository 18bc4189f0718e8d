// Qualitative colours that stay apart for colour-blind readers, on white and on black.
const HUES = ["#2f8fd0", "#e0701f", "#159a76", "#cf6fae", "#b48a00", "#7f7fe0"];
const FAINT = 0.12;
const NAMED = 40;

function canvasIn(parent, height, label) {
  const canvas = make("canvas", { role: "img", "aria-label": label });
  canvas.style.height = `${height}px`;
  parent.append(canvas);
  return canvas;
}

function penFor(canvas) {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.font = "12px system-ui, sans-serif";
  return [pen, width, height];
}

// Places of values along an axis from one pixel to another, and where its ticks are.
function axis(values, from, to, mayBeLog) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value === null) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const isLog = mayBeLog && low > 0 && high / low > 20;
  const of = isLog ? Math.log10 : (value) => value;
  if (low === high) [low, high] = isLog ? [low / 2, high * 2] : [low - 0.5, high + 0.5];
  const room = (of(high) - of(low)) * 0.05, first = of(low) - room, last = of(high) + room;
  const at = (value) => from + ((of(value) - first) / (last - first)) * (to - from);
  return { at, ticks: isLog ? powers(first, last) : steps(first, last) };
}

function steps(first, last) {
  const rough = (last - first) / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((by) => by * power).find((one) => one >= rough);
  const found = [];
  for (let at = Math.ceil(first / step); at * step <= last; at++) found.push(Number((at * step).toPrecision(12)));
  return found;
}

function powers(first, last) {
  const found = [];
  for (let power = Math.ceil(first); power <= last; power++) found.push(10 ** power);
  if (found.length > 1) return found.filter((_, i) => i % Math.ceil(found.length / 5) === 0);
  return [1, 2, 5].map((by) => by * 10 ** Math.floor(first)).concat([1, 2, 5].map((by) => by * 10 ** Math.ceil(first)))
    .filter((one) => Math.log10(one) >= first && Math.log10(one) <= last);
}

function brief(value) {
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]])
    if (Math.abs(value) >= size) return `${Number((value / size).toPrecision(3))}${unit}`;
  return String(Number(value.toPrecision(3)));
}

function drawAxes(pen, x, y, box) {
  pen.strokeStyle = colour("--rule");
  pen.fillStyle = colour("--faint");
  pen.lineWidth = 1;
  pen.textAlign = "center";
  pen.textBaseline = "top";
  for (const tick of x.ticks) {
    pen.beginPath();
    pen.moveTo(x.at(tick), box.top);
    pen.lineTo(x.at(tick), box.bottom);
    pen.stroke();
    pen.fillText(brief(tick), x.at(tick), box.bottom + 5);
  }
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (const tick of y.ticks) {
    pen.beginPath();
    pen.moveTo(box.left, y.at(tick));
    pen.lineTo(box.right, y.at(tick));
    pen.stroke();
    pen.fillText(brief(tick), box.left - 5, y.at(tick));
  }
}

// One score against one size. hueOf: the colour of a model. shows: whether a model passes the filters.
function scatter(parent, label, { x, y, hueOf, shows, chosen, choose, tell }) {
  const canvas = canvasIn(parent, 260, label);
  const radius = x.length > 2000 ? 1.8 : x.length > 200 ? 2.8 : 4;
  let spots = [];
  const draw = () => {
    const [pen, width, height] = penFor(canvas);
    const box = { left: 46, right: width - 8, top: 8, bottom: height - 24 };
    const has = x.map((value, i) => value !== null && y[i] !== null);
    const across = axis(x.filter((_, i) => has[i]), box.left, box.right, true);
    const up = axis(y.filter((_, i) => has[i]), box.bottom, box.top, false);
    drawAxes(pen, across, up, box);
    spots = [];
    for (let i = 0; i < x.length; i++) {
      if (!has[i]) continue;
      const spot = [across.at(x[i]), up.at(y[i]), i], seen = shows(i);
      pen.globalAlpha = seen ? 0.7 : FAINT;
      pen.fillStyle = hueOf(i);
      pen.beginPath();
      pen.arc(spot[0], spot[1], radius, 0, 7);
      pen.fill();
      if (seen) spots.push(spot);
    }
    pen.globalAlpha = 1;
    const at = chosen();
    if (at >= 0 && has[at]) {
      pen.strokeStyle = colour("--ink");
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(across.at(x[at]), up.at(y[at]), radius + 4, 0, 7);
      pen.stroke();
    }
  };
  pointed(canvas, (left, top) => nearest(spots, left, top), choose, tell);
  return draw;
}

function nearest(spots, left, top) {
  let best = -1, least = 15 ** 2;
  for (const [x, y, i] of spots) {
    const far = (x - left) ** 2 + (y - top) ** 2;
    if (far < least) [best, least] = [i, far];
  }
  return best;
}

function pointed(canvas, find, choose, tell) {
  const under = (event) => {
    const box = canvas.getBoundingClientRect();
    return find(event.clientX - box.left, event.clientY - box.top);
  };
  canvas.addEventListener("pointermove", (event) => {
    const found = under(event);
    canvas.style.cursor = found >= 0 ? "pointer" : "";
    tell(found);
  });
  canvas.addEventListener("pointerleave", () => tell(-1));
  canvas.addEventListener("click", (event) => {
    const found = under(event);
    if (found >= 0) choose(found);
  });
}

// A line a model through its place by each score, the best on top.
function threads(parent, label, { titles, places, names, shows, chosen, choose, tell }) {
  const size = names.length, isNamed = size <= NAMED;
  const most = Math.max(2, ...places.map((of) => of.reduce((a, b) => Math.max(a, b ?? 1), 1)));
  parent.style.setProperty("--columns", titles.length);
  const inside = make("div", { class: "threads" });
  const heads = make("div", { class: "heads", "aria-hidden": "true" });
  for (const title of titles) heads.append(make("span", { text: title }));
  inside.append(heads);
  parent.append(inside);
  const canvas = canvasIn(inside, isNamed ? Math.max(180, 24 * most + 16) : 420, label);
  const best = places[0].map((place, i) => [place, i]).filter(([place]) => place !== null)
    .sort((a, b) => a[0] - b[0]).slice(0, 10).map(([, i]) => i);
  let margin = 0, high = 0, wide = 0;
  const across = (column) => margin + ((column + 0.5) * (wide - margin)) / titles.length;
  const down = (place) => 12 + ((place - 1) / (most - 1)) * (high - 24);
  const line = (pen, i) => {
    pen.beginPath();
    let isDown = false;
    places.forEach((of, column) => {
      if (of[i] === null) isDown = false;
      else if (isDown) pen.lineTo(across(column), down(of[i]));
      else {
        pen.moveTo(across(column), down(of[i]));
        isDown = true;
      }
    });
    pen.stroke();
    for (const [column, of] of places.entries()) {
      if (of[i] === null) continue;
      pen.beginPath();
      pen.arc(across(column), down(of[i]), pen.lineWidth + 1, 0, 7);
      pen.fill();
    }
  };
  const draw = () => {
    wide = canvas.clientWidth;
    margin = isNamed ? Math.min(260, parent.clientWidth * 0.35) : 58;
    heads.style.paddingLeft = `${margin}px`;
    const [pen, , height] = penFor(canvas);
    high = height;
    pen.strokeStyle = pen.fillStyle = colour(isNamed ? "--faint" : "--thread");
    pen.lineWidth = size > 1000 ? 0.5 : 1;
    pen.globalAlpha = isNamed ? 0.6 : 1;
    for (let i = 0; i < size; i++) if (shows(i)) line(pen, i);
    best.forEach((i, number) => {
      pen.strokeStyle = pen.fillStyle = HUES[number % HUES.length];
      pen.lineWidth = 2;
      pen.globalAlpha = shows(i) ? 1 : FAINT;
      line(pen, i);
    });
    pen.globalAlpha = 1;
    if (chosen() >= 0) {
      pen.strokeStyle = pen.fillStyle = colour("--ink");
      pen.lineWidth = 3;
      line(pen, chosen());
    }
    pen.fillStyle = colour("--ink");
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    if (!isNamed) for (const place of [1, Math.round(most / 2), most]) pen.fillText(shown(place), margin - 6, down(place));
    const level = {};
    names.forEach((name, i) => {
      if (!isNamed || places[0][i] === null) return;
      const under = (level[places[0][i]] = (level[places[0][i]] ?? 0) + 1) - 1;
      pen.fillText(fitted(pen, `${name}  ${places[0][i]}`, margin - 12), margin - 6, down(places[0][i] + under));
    });
  };
  const find = (left, top) => {
    const each = (wide - margin) / titles.length;
    const column = Math.min(titles.length - 1, Math.max(0, Math.floor((left - margin) / each)));
    return nearest(names.map((_, i) => [left, places[column][i] === null || !shows(i) ? -99 : down(places[column][i]), i]),
      left, top);
  };
  pointed(canvas, find, choose, tell);
  return draw;
}

// The end of a name tells models of one folder apart.
function fitted(pen, text, room) {
  if (pen.measureText(text).width <= room) return text;
  let cut = 1;
  while (cut < text.length && pen.measureText(`…${text.slice(cut)}`).width > room) cut++;
  return `…${text.slice(cut)}`;
}
