"use strict";
// Draws the curves and the graph of an explanation. Names go into the page as text alone.
(() => {
  const { weights, values } = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const deepest = values.reduce((most, one) => Math.max(most, one.depth), 1);
  const magnitudes = [];
  for (const one of values) for (const seen of one.seen) {
    if (seen && seen.magnitude !== null) magnitudes.push(seen.magnitude);
  }
  const bounds = magnitudes.reduce(([low, high], one) => [Math.min(low, one), Math.max(high, one)], [0, 0]);
  const readers = values.map(() => []);
  values.forEach((one, index) => one.operands.forEach((operand) => readers[operand].push(index)));
  const rows = [];
  values.forEach((one, index) => (rows[one.depth] ||= []).push(index));
  rows.forEach((row) => row.sort((a, b) => values[a].column - values[b].column));
  let chosen = -1;

  // Curves

  function largest(constant, what) {
    const found = [];
    for (const one of values) {
      const seen = one.seen[constant];
      if (!seen || seen[what] === null) continue;
      if (found[one.depth] === undefined || seen[what] > found[one.depth]) found[one.depth] = seen[what];
    }
    return found;
  }
  const curves = ["magnitude", "variation"].flatMap((what) =>
    [0, 1].map((constant) => ({ what, constant, heights: largest(constant, what) })));

  function svg(name, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function drawCurves() {
    const holder = byId("curves");
    const width = Math.max(holder.clientWidth, 240), height = 280;
    const left = 58, right = 8, top = 8, bottom = 34;
    let low = Infinity, high = -Infinity;
    for (const { heights } of curves) for (const one of heights) {
      if (one !== undefined) { low = Math.min(low, one); high = Math.max(high, one); }
    }
    if (low > high) { low = -1; high = 1; }
    const margin = Math.max(1, (high - low) * 0.04);
    low -= margin; high += margin;
    const x = (depth) => left + (width - left - right) * depth / deepest;
    const y = (log) => top + (height - top - bottom) * (high - log) / (high - low);
    const drawn = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
      "aria-label": `largest magnitude and variation at each of ${deepest} depths, for weights ${weights.join(" and ")}` });
    const step = Math.max(1, Math.ceil((high - low) / 6));
    for (let log = Math.ceil(low / step) * step; log <= high; log += step) {
      drawn.append(svg("line", { x1: left, x2: width - right, y1: y(log), y2: y(log), stroke: "var(--line)" }));
      drawn.append(svg("text", { x: left - 6, y: y(log) + 4, "text-anchor": "end" }, `1e${log}`));
    }
    for (const [log, name] of [[-44.85, "float32 ends"], [38.53, "float32 ends"]]) {
      if (log <= low || log >= high) continue;
      drawn.append(svg("line", { x1: left, x2: width - right, y1: y(log), y2: y(log), stroke: "var(--soft)",
        "stroke-width": 2 }));
      drawn.append(svg("text", { x: width - right - 4, y: y(log) - 4, "text-anchor": "end" }, name));
    }
    const every = Math.max(1, Math.ceil(deepest / Math.max(2, Math.floor(width / 90))));
    for (let depth = 0; depth <= deepest; depth += every) {
      drawn.append(svg("text", { x: x(depth), y: height - 16, "text-anchor": "middle" }, depth));
    }
    drawn.append(svg("text", { x: (left + width) / 2, y: height - 2, "text-anchor": "middle" }, "depth"));
    for (const { what, constant, heights } of curves) {
      let path = "", on = false;
      for (let depth = 0; depth <= deepest; depth++) {
        if (heights[depth] === undefined) { on = false; continue; }
        path += `${on ? "L" : "M"}${x(depth).toFixed(1)} ${y(heights[depth]).toFixed(1)}`;
        if (!on) path += "h0.01";
        on = true;
      }
      drawn.append(svg("path", { d: path, fill: "none", "stroke-width": 2, "stroke-linecap": "round",
        stroke: constant ? "var(--second)" : "var(--first)", "stroke-dasharray": what === "variation" ? "5 5" : "none" }));
    }
    const lost = values.filter((one) => one.lost);
    for (const one of lost.slice(0, 1)) {
      drawn.append(svg("line", { x1: x(one.depth), x2: x(one.depth), y1: top, y2: height - bottom,
        stroke: "var(--bad)", "stroke-width": 2 }));
      const late = x(one.depth) > width - 160;
      const label = svg("text", { x: x(one.depth) + (late ? -5 : 5), y: top + 12, "text-anchor": late ? "end" : "start" },
        one.lost.split(":")[0]);
      label.style.fill = "var(--bad)";
      drawn.append(label);
    }
    const depthAt = (event) => {
      const box = drawn.getBoundingClientRect();
      return Math.min(deepest, Math.max(0, Math.round((event.clientX - box.left - left) / (width - left - right) * deepest)));
    };
    const power = (log) => log === undefined ? "nothing" : `1e${log.toFixed(1)}`;
    drawn.addEventListener("mousemove", (event) => {
      const depth = depthAt(event);
      byId("reading").textContent = `Depth ${depth}: ` + [0, 1].map((constant) =>
        `with ${weights[constant]} ${power(curves[constant].heights[depth])}, samples differ by ` +
        `${power(curves[2 + constant].heights[depth])}`).join("; ");
    });
    drawn.addEventListener("click", (event) => {
      const row = rows[depthAt(event)];
      if (row) choose(row[0]);
    });
    holder.replaceChildren(drawn);
  }

  // The graph: a canvas as large as what is seen of it, over a space as large as the whole.

  const graph = byId("graph"), canvas = byId("canvas"), space = byId("space"), pen = canvas.getContext("2d");
  const across = 136, down = 46, wide = 122, tall = 26, edge = 12;
  const left = (one) => edge + one.column * across, top = (one) => edge + one.depth * down;
  const widest = values.reduce((most, one) => Math.max(most, one.column), 0);
  space.style.width = `${2 * edge + widest * across + wide}px`;
  space.style.height = `${2 * edge + deepest * down + tall}px`;

  function shade(seen, hue) {
    if (!seen || seen.magnitude === null) return null;
    const part = (seen.magnitude - bounds[0]) / Math.max(bounds[1] - bounds[0], 1e-9);
    return `hsl(${hue} 65% 50% / ${(0.12 + 0.6 * part).toFixed(2)})`;
  }

  function half(x, y, seen, hue, paint) {
    pen.fillStyle = shade(seen, hue) || paint.box;
    pen.fillRect(x, y, wide / 2, tall);
    if (seen && seen.variation !== null) return;
    pen.save();
    pen.beginPath();
    pen.rect(x, y, wide / 2, tall);
    pen.clip();
    pen.strokeStyle = paint.line;
    pen.beginPath();
    for (let at = -tall; at < wide / 2; at += 7) { pen.moveTo(x + at, y + tall); pen.lineTo(x + at + tall, y); }
    pen.stroke();
    pen.restore();
  }

  function drawGraph() {
    const ratio = window.devicePixelRatio || 1, width = graph.clientWidth, height = graph.clientHeight;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    }
    const paint = { ink: colour("--ink"), line: colour("--line"), soft: colour("--soft"), bad: colour("--bad"),
      box: colour("--box"), paper: colour("--paper"), first: colour("--first") };
    const first = graph.scrollTop, last = first + height;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.fillStyle = paint.paper;
    pen.fillRect(0, 0, width, height);
    pen.translate(-graph.scrollLeft, -graph.scrollTop);
    pen.lineWidth = 1;
    values.forEach((one, index) => {
      const end = top(one);
      if (end < first - tall) return;
      for (const operand of one.operands) {
        const from = values[operand], start = top(from) + tall;
        if (start > last) continue;
        const near = index === chosen || operand === chosen;
        pen.strokeStyle = near ? paint.first : paint.soft;
        pen.globalAlpha = near ? 1 : 0.5;
        const x1 = left(from) + wide / 2, x2 = left(one) + wide / 2;
        pen.beginPath();
        pen.moveTo(x1, start);
        const bend = end - start > down ? Math.min(60, across / 2) : 0;
        pen.bezierCurveTo(x1 + bend, start + 14, x2 + bend, end - 14, x2, end);
        pen.stroke();
      }
    });
    pen.globalAlpha = 1;
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "middle";
    const from = Math.max(0, Math.floor((first - edge - tall) / down)), to = Math.ceil((last - edge) / down);
    for (let depth = from; depth <= Math.min(to, deepest); depth++) {
      for (const index of rows[depth] || []) {
        const one = values[index], x = left(one), y = top(one);
        if (x + wide < graph.scrollLeft || x > graph.scrollLeft + width) continue;
        pen.fillStyle = paint.paper;
        pen.fillRect(x, y, wide, tall);
        half(x, y, one.seen[0], 210, paint);
        half(x + wide / 2, y, one.seen[1], 28, paint);
        pen.strokeStyle = one.lost ? paint.bad : index === chosen ? paint.first : paint.soft;
        pen.lineWidth = one.lost || index === chosen ? 3 : 1;
        pen.setLineDash(one.inside.length ? [4, 3] : []);
        pen.strokeRect(x, y, wide, tall);
        pen.setLineDash([]);
        pen.lineWidth = 1;
        pen.fillStyle = one.lost ? paint.bad : paint.ink;
        pen.fillText(one.operator.length > 24 ? `${one.operator.slice(0, 23)}…` : one.operator, x + 6, y + tall / 2, wide - 12);
      }
    }
  }
  let waiting = false;
  function redraw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; drawGraph(); });
  }

  function line(list, term, text, kind) {
    const name = document.createElement("dt"), said = document.createElement("dd");
    name.textContent = term;
    said.textContent = text;
    if (kind) said.className = kind;
    list.append(name, said);
  }

  function choose(index, scroll = true) {
    chosen = index;
    const one = values[index], list = document.createElement("dl");
    if (one.lost) line(list, "Lost", one.lost, "lost");
    line(list, "Value", one.name);
    line(list, "Node", one.node ? `${one.node} (${one.operator})` : "an input");
    if (one.inside.length) line(list, "Inside of", one.inside.join(", in "));
    line(list, "Depth", `${one.depth}`);
    if (one.shape) line(list, "Shape", `[${one.shape.join(", ")}]` + (one.classes ? `, classes [${one.classes.join(", ")}]` : ""));
    one.seen.forEach((seen, constant) => {
      const text = !seen ? "not computed" : `from ${seen.low} to ${seen.high}; ` + (seen.variation === null
        ? "the same for every sample" : `samples differ by ${seen.varies}`) + (seen.finite ? "" : "; not finite");
      line(list, `With weights ${weights[constant]}`, text);
    });
    if (one.dispersion !== null) line(list, "Dispersion", one.dispersion.toPrecision(4));
    if (one.share !== null) line(list, "Share of the score", `${(100 * one.share).toFixed(2)}%`);
    if (one.operands.length) line(list, "Fed by", one.operands.map((operand) => values[operand].name).join(", "));
    byId("details").replaceChildren(list);
    if (scroll) {
      graph.scrollTo(left(one) + wide / 2 - graph.clientWidth / 2, top(one) + tall / 2 - graph.clientHeight / 2);
    }
    redraw();
  }

  graph.addEventListener("scroll", redraw, { passive: true });
  graph.addEventListener("click", (event) => {
    const box = graph.getBoundingClientRect();
    const x = event.clientX - box.left + graph.scrollLeft, y = event.clientY - box.top + graph.scrollTop;
    const row = rows[Math.floor((y - edge) / down)] || [];
    const hit = row.find((index) => x >= left(values[index]) && x <= left(values[index]) + wide);
    if (hit !== undefined) choose(hit, false);
  });
  graph.addEventListener("keydown", (event) => {
    const one = values[chosen], row = one ? rows[one.depth] : [], place = row.indexOf(chosen);
    const next = { ArrowDown: one ? readers[chosen][0] : 0, ArrowUp: one && one.operands[0],
      ArrowLeft: row[place - 1], ArrowRight: row[place + 1], Home: 0, End: values.length - 1 };
    if (!(event.key in next) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    if (next[event.key] !== undefined) choose(next[event.key]);
  });
  byId("find").addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    const wanted = event.target.value.toLowerCase();
    for (let step = 1; step <= values.length; step++) {
      const index = (chosen + step + values.length) % values.length, one = values[index];
      if (one.name.toLowerCase().includes(wanted) || one.node.toLowerCase().includes(wanted)) return choose(index);
    }
  });
  const lost = values.findIndex((one) => one.lost);
  byId("lost")?.addEventListener("click", () => { choose(lost); graph.focus({ preventScroll: true }); });

  new ResizeObserver(() => { drawCurves(); redraw(); }).observe(document.querySelector("main"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  drawCurves();
  if (lost >= 0) choose(lost);
  drawGraph();
  document.documentElement.dataset.ready = "yes";
})();
