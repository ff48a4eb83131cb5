"use strict";

/* Plotly's "Share chart" would upload the results to its makers' cloud: it is left out, address and all. */
const CONFIG = {
  responsive: true,
  displaylogo: false,
  showSendToCloud: false,
  plotlyServerURL: "",
  modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
};

/* Libraries lie in the page compressed, and are run once something is on the screen. */
async function load(name) {
  const packed = document.querySelector(`script[data-library="${name}"]`);
  const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
  packed.remove();
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  script.remove();
}

const painted = new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
const TEXTS = JSON.parse(document.getElementById("texts").textContent);

painted.then(() => load("plotly")).then(drawFigures).then(makeTrials);

/* The table of trials, if the page has one, and what is shown of each. */
async function makeTrials() {
  const place = document.querySelector(".all-trials");
  if (!place) return;
  await load("tabulator");
  const grid = JSON.parse(document.getElementById("grid").textContent);
  makeDetails(grid, JSON.parse(document.getElementById("details").textContent));
  trialTable(place, grid);
}

/* Figures are drawn when they come into view: a page of many is there at once. */
function drawFigures() {
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      draw(target);
    }
  }, { rootMargin: "600px" });
  for (const plot of document.querySelectorAll(".plot")) seen.observe(plot);
  addEventListener("beforeprint", () => document.querySelectorAll(".plot:not(.js-plotly-plot)").forEach(draw));
}

function draw(plot) {
  if (plot.dataset.drawn) return;
  plot.dataset.drawn = "yes";
  const figure = JSON.parse(plot.closest("section").querySelector("script").textContent);
  for (const trace of figure.data) {
    if (trace.texts) trace.text = trace.texts.map((place) => TEXTS[place]);
    delete trace.texts;
  }
  Plotly.newPlot(plot, figure.data, figure.layout, CONFIG);
  const splits = new Set(figure.data.map((trace) => trace.meta?.split).filter(Boolean));
  if (splits.size > 1) plot.parentElement.before(splitChooser(plot, figure.data));
  plot.parentElement.after(figureTools(plot));
  linkFigure(plot);
}

/* A figure as a file, as it is shown at the moment; what it shows as numbers is the link beside its title. */
function figureTools(plot) {
  const tools = document.createElement("div");
  tools.className = "tools quiet";
  const filename = plot.closest("section").id;
  for (const format of ["svg", "png"]) {
    const save = button(format.toUpperCase(), `save the figure as ${format.toUpperCase()}`);
    save.setAttribute("aria-label", save.title);
    const size = () => ({ width: plot.clientWidth, height: plot.clientHeight, scale: format === "png" ? 2 : 1 });
    save.addEventListener("click", () => Plotly.downloadImage(plot, { format, filename, ...size() }));
    tools.append(save);
  }
  return tools;
}

/* Radio buttons that show the traces of one split; traces name theirs in `meta.split`. */
function splitChooser(plot, traces) {
  const fieldset = document.createElement("fieldset");
  fieldset.className = "splits";
  fieldset.innerHTML = "<legend>Split</legend>";
  for (const [split, name] of [["val", "validation"], ["test", "test"]]) {
    const label = document.createElement("label");
    const show = () => Plotly.restyle(plot, { visible: traces.map((trace) => (trace.meta?.split ?? split) === split) });
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: "split" });
    radio.addEventListener("change", show);
    if (split === "val") {
      radio.checked = true;
      show();
    }
    label.append(radio, ` ${name}`);
    fieldset.append(label);
  }
  return fieldset;
}
