/* One trial at a time is selected: in the table, in the figures, and beside the page, where all of it is shown. */

const listeners = [];
let selected = "";

function onSelect(listener) {
  listeners.push(listener);
}

function select(name, from) {
  selected = name;
  for (const listener of listeners) listener(name, from);
}

function makeDetails(grid, details) {
  const places = new Map(grid.rows.map((row, at) => [row[0], at]));
  const drawer = document.createElement("aside");
  drawer.className = "drawer";
  drawer.hidden = true;
  drawer.setAttribute("aria-label", "the selected trial");
  document.body.append(drawer);
  let before = null;
  const close = () => {
    drawer.hidden = true;
    ring("");
    before?.focus?.();
  };
  addEventListener("keydown", (event) => event.key === "Escape" && !drawer.hidden && close());
  onSelect((name) => {
    const at = places.get(name);
    if (at === undefined) return;
    if (drawer.hidden) before = document.activeElement;
    fill(drawer, grid, details, at, close);
    drawer.hidden = false;
    drawCourse(drawer, details.trials[at], details);
    ring(details.trials[at].as ?? name);
  });
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function fill(drawer, grid, details, at, close) {
  const row = grid.rows[at], detail = details.trials[at], name = row[0];
  const shut = element("button", { type: "button", className: "shut", textContent: "×", onclick: close });
  shut.setAttribute("aria-label", "close");
  const role = grid.roles[name];
  const title = element("h2", {}, name, role ? " " : "", role ? element("span", { className: `tag ${role}`, textContent: role }) : "");
  const state = grid.columns.findIndex((column) => column.title === "state");
  drawer.replaceChildren(shut, title, element("p", { className: "note", textContent: row[state] }));
  if (detail.reason) drawer.append(element("pre", { textContent: detail.reason, tabIndex: 0 }));
  drawer.append(element("p", { className: "settings", textContent: settings(grid, row, detail) }));
  drawer.append(ratesTable(details, detail));
  if (detail.epochs) drawer.append(element("h3", { textContent: "Epoch by epoch, validation" }), element("div", { className: "course" }));
  if (detail.classes) drawer.append(element("h3", { textContent: "Class by class, test" }), element("div", { className: "by-class" }));
  drawer.append(stagesTable(details, detail));
  drawer.scrollTop = 0;
}

/* Searched settings from the table, and what else the trial changes. */
function settings(grid, row, detail) {
  const searched = grid.columns.map((column, at) => (column.knob ? `${column.title} = ${shown(column, row[at])}` : ""));
  return [...new Set([...searched.filter(Boolean), ...(detail.change ?? [])])].join(" · ");
}

function ratesTable(details, detail) {
  const cell = (rates, from) => {
    if (!rates || rates[from] === null) return "–";
    const [mean, low, high] = rates.slice(from, from + 3).map((tenths) => (tenths / 10).toFixed(1));
    return [`${mean}% `, element("small", { textContent: `${low}–${high}` })];
  };
  const rows = details.splits.map((split, at) => [split, detail.rates[at]]).filter(([, rates]) => rates);
  if (!rows.length) return "";
  return plainTable(["", "ASR", "CA"], rows.map(([split, rates]) => [split, cell(rates, 0), cell(rates, 3)]));
}

function stagesTable(details, detail) {
  if (!detail.stages.length) return "";
  const rows = detail.stages.map(([stage, whole, spent]) => [
    details.stages[stage], duration(whole), spent === 0 ? "reused" : spent < whole - 0.1 ? `${duration(spent)} of it` : "computed",
  ]);
  return plainTable(["stage", "from nothing", "here"], rows);
}

function plainTable(head, rows) {
  const cells = (tag, row) => row.map((one, at) => element(tag, at ? { className: "number" } : {}, ...(Array.isArray(one) ? one : [one])));
  const heads = cells("th", head);
  heads.forEach((one) => (one.scope = "col"));
  return element("table", { className: "plain" }, element("thead", {}, element("tr", {}, ...heads)),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells("td", row)))));
}

function drawCourse(drawer, detail, details) {
  const layout = (height) => ({
    height, margin: { l: 42, r: 8, t: 8, b: 34 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: "#7B808A", size: 12 }, legend: { orientation: "h", y: 1.18 },
    xaxis: { gridcolor: "rgba(128,134,145,.22)", zeroline: false }, yaxis: { tickformat: "~%", gridcolor: "rgba(128,134,145,.22)", range: [-0.02, 1.02], zeroline: false },
  });
  const course = drawer.querySelector(".course"), classes = drawer.querySelector(".by-class");
  const names = ["ASR", "CA"], colours = ["#D55E00", "#0072B2"];
  if (course) {
    const traces = [0, 1].filter((at) => detail.epochs[at].some((rate) => rate !== null)).map((at) => ({
      x: detail.epochs[at].map((_, epoch) => epoch + detail.epochs[2]), y: detail.epochs[at].map((tenths) => (tenths === null ? null : tenths / 1000)), name: names[at],
      mode: "lines+markers", line: { color: colours[at] }, hovertemplate: `${names[at]} after epoch %{x}: %{y:.1%}<extra></extra>`,
    }));
    const look = layout(190);
    look.xaxis = { ...look.xaxis, title: { text: "epoch (0: the poisoned model)", standoff: 4 }, dtick: detail.epochs[0].length < 14 ? 1 : undefined };
    Plotly.newPlot(course, traces, look, { ...CONFIG, displayModeBar: false });
  }
  if (classes) {
    const traces = [0, 1].filter((at) => detail.classes[at]).map((at) => ({
      type: "bar", x: details.classes, y: detail.classes[at].map((share) => (share === null ? null : share / 100)), name: names[at],
      marker: { color: colours[at] }, hovertemplate: `%{x}: ${names[at]} %{y:.1%}<extra></extra>`,
    }));
    Plotly.newPlot(classes, traces, { ...layout(220), bargap: 0.3, margin: { l: 42, r: 8, t: 8, b: 70 } }, { ...CONFIG, displayModeBar: false });
  }
}

/* A ring around a configuration wherever a figure has it; traces name what they show in `customdata`. */
function ring(name) {
  for (const plot of document.querySelectorAll("main .js-plotly-plot")) {
    const old = plot.data.map((trace, at) => (trace.meta?.ring ? at : -1)).filter((at) => at >= 0);
    if (old.length) Plotly.deleteTraces(plot, old);
    if (!name) continue;
    const rings = new Map();
    for (const trace of plot.data) {
      if (!Array.isArray(trace.customdata) || trace.visible === false || trace.visible === "legendonly") continue;
      trace.customdata.forEach((one, at) => {
        if (one !== name) return;
        const key = `${trace.xaxis ?? "x"} ${trace.yaxis ?? "y"}`;
        const ringOf = rings.get(key) ?? { x: [], y: [], xaxis: trace.xaxis, yaxis: trace.yaxis };
        ringOf.x.push(trace.x[at]);
        ringOf.y.push(trace.y[at]);
        rings.set(key, ringOf);
      });
    }
    const marker = { symbol: "circle-open", size: 17, color: "#CC79A7", line: { width: 3 } };
    if (rings.size) {
      Plotly.addTraces(plot, [...rings.values()].map((one) => ({ ...one, mode: "markers", marker, hoverinfo: "skip", showlegend: false, cliponaxis: false, meta: { ring: true } })));
    }
  }
}

function linkFigure(plot) {
  plot.on("plotly_click", ({ points }) => {
    const name = points.find((point) => typeof point.customdata === "string")?.customdata;
    if (name) select(name, "figure");
  });
  if (selected) ring(selected);
}
