/* Tables: small ones are sorted where they stand; that of all trials is Tabulator's, with search, filters and columns. */

const FORMATS = {
  text: (value) => value,
  number: (value) => (Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)))),
  percent,
  duration,
};

/* Halves go to the even digit, as in all that Python has written on this page; `toFixed` takes the higher one. */
function percent(value) {
  const number = 100 * value;
  return `${(number % 1 === 0.25 ? number - 0.05 : number).toFixed(1)}%`;
}

function duration(seconds) {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds), minutes = Math.floor(whole / 60), rest = whole % 60;
  if (minutes === 0) return `${rest} s`;
  if (minutes < 60) return `${minutes} min ${String(rest).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

function shown(column, value) {
  return value === null || value === undefined || value === "" ? "–" : FORMATS[column.format](value);
}

/* A filter of numbers: `<10`, `>=0.5`, `5-10`, or the text that the cell begins with. Rates are meant in percent. */
function matches(column, typed, value) {
  const wanted = typed.trim();
  if (!wanted) return true;
  const bound = wanted.match(/^(<=|>=|<|>|=)\s*(-?[\d.]+(?:e-?\d+)?)\s*%?$/);
  const range = wanted.match(/^(-?[\d.]+)\s*(?:-|–|…|\.\.)\s*(-?[\d.]+)\s*%?$/);
  if (column.format === "text" || !(bound || range)) {
    return shown(column, value).toString().toLowerCase().includes(wanted.toLowerCase());
  }
  if (typeof value !== "number") return false;
  const number = column.format === "percent" ? 100 * value : value;
  if (range) return number >= Number(range[1]) && number <= Number(range[2]);
  const other = Number(bound[2]);
  return { "<": number < other, "<=": number <= other, ">": number > other, ">=": number >= other, "=": number === other }[bound[1]];
}

/* Missing values last in either direction. */
function ordered(a, b, rowA, rowB, column, direction) {
  const missing = (value) => value === null || value === undefined || value === "";
  if (missing(a) || missing(b)) return (missing(a) - missing(b)) * (direction === "asc" ? 1 : -1);
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
}

function trialTable(place, grid) {
  const data = grid.rows.map((row, at) => {
    const item = { id: at };
    row.forEach((value, column) => (item[`c${column}`] = value));
    return item;
  });
  const holder = document.createElement("div");
  const section = place.parentElement;
  place.replaceWith(holder);
  holder.className = "grid";
  const columns = grid.columns.map((column, at) => ({
    title: column.title,
    field: column.field,
    visible: column.shown,
    frozen: at === 0,
    headerTooltip: column.hint || column.title,
    hozAlign: column.format === "text" ? "left" : "right",
    headerHozAlign: column.format === "text" ? "left" : "right",
    sorter: ordered,
    maxInitialWidth: 260,
    formatter: (cell) => {
      const text = document.createElement("span");
      text.textContent = shown(column, cell.getValue());
      const role = at === 0 ? grid.roles[cell.getValue()] : "";
      if (role) {
        const tag = Object.assign(document.createElement("span"), { className: `tag ${role}`, textContent: role });
        text.append(" ", tag);
      }
      return text;
    },
    headerFilter: "input",
    headerFilterLiveFilter: true,
    headerFilterPlaceholder: column.format === "text" ? "contains" : column.format === "percent" ? "<10 or 5-10" : "=, <, >",
    headerFilterFunc: (typed, value) => matches(column, typed, value),
    headerFilterParams: { elementAttributes: { "aria-label": `filter ${column.title}` } },
  }));
  const table = new Tabulator(holder, {
    data,
    columns,
    layout: "fitData",
    height: Math.min(640, 96 + 32 * data.length),
    movableColumns: true,
    selectableRows: 1,
    placeholder: "No trial matches",
    headerSortClickElement: "header",
    columnDefaults: { resizable: true },
  });
  table.on("rowClick", (_, row) => select(row.getData().c0, "table"));
  table.on("tableBuilt", () => {
    section.insertBefore(gridTools(table, grid, section), holder);
    holder.classList.add("no-filters");
    keyboard(holder, table);
    printed(holder, table, grid);
  });
  onSelect((name, from) => {
    table.deselectRow();
    const row = table.getRows().find((one) => one.getData().c0 === name);
    if (!row) return;
    row.select();
    if (from !== "table") table.scrollToRow(row, "center", false).catch(() => {});
  });
  return table;
}

/* Enter or space on a focused row shows its trial; arrows go on to its neighbours. */
function keyboard(holder, table) {
  // What is focused has to be a part of a grid by its role, as that which scrolls is not.
  holder.querySelector(".tabulator-tableholder").removeAttribute("tabindex");
  const body = holder.querySelector(".tabulator-table");
  body.tabIndex = 0;
  body.setAttribute("aria-label", "trials; arrow keys choose one, enter shows it");
  body.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const rows = table.getRows("active");
    const at = rows.findIndex((row) => row.isSelected());
    if (step && rows.length) {
      event.preventDefault();
      const row = rows[Math.min(rows.length - 1, Math.max(0, at + step))];
      table.deselectRow();
      row.select();
      table.scrollToRow(row, "nearest", false).catch(() => {});
    } else if (event.key === "Enter" && at >= 0) {
      select(rows[at].getData().c0, "table");
    }
  });
}

function gridTools(table, grid, section) {
  const tools = document.createElement("div");
  tools.className = "tools";
  const search = Object.assign(document.createElement("input"), { type: "search", placeholder: "search all columns" });
  search.setAttribute("aria-label", "search the trials");
  const counted = Object.assign(document.createElement("output"), { textContent: `${grid.rows.length} trials` });
  counted.setAttribute("aria-live", "polite");
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (item) => {
      const text = grid.columns.map((column) => shown(column, item[column.field])).join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    };
    if (words.length) table.setFilter(fits);
    else table.clearFilter();
  });
  table.on("dataFiltered", (_, rows) => {
    const all = grid.rows.length;
    counted.textContent = rows.length === all ? `${all} trials` : `${rows.length} of ${all} trials`;
  });
  const filters = button("filters", "show a filter below each heading");
  filters.setAttribute("aria-pressed", "false");
  filters.addEventListener("click", () => {
    const hidden = table.element.classList.toggle("no-filters");
    filters.setAttribute("aria-pressed", String(!hidden));
    table.redraw();
  });
  tools.append(search, filters, columnMenu(table, grid), ...copyButtons(() => gridLines(table, grid)), counted);
  return tools;
}

/* On paper stands what is filtered and sorted, in the columns that are shown: all of it, and not what is in view. */
function printed(holder, table, grid) {
  addEventListener("beforeprint", () => {
    holder.parentElement.querySelector(".printed")?.remove();
    const { head, rows, numbers } = gridLines(table, grid);
    const cells = (tag, row) => row.map((text, at) => element(tag, numbers[at] ? { className: "number" } : {}, text));
    const shownRows = rows.map((row) => element("tr", {}, ...cells("td", row.map(String))));
    const heads = element("thead", {}, element("tr", {}, ...cells("th", head)));
    holder.after(element("table", { className: "plain printed" }, heads, element("tbody", {}, ...shownRows)));
  });
  addEventListener("afterprint", () => holder.parentElement.querySelector(".printed")?.remove());
}

function columnMenu(table, grid) {
  const menu = document.createElement("details");
  menu.className = "menu";
  menu.innerHTML = "<summary>columns</summary>";
  const list = document.createElement("div");
  for (const column of grid.columns.slice(1)) {
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: column.shown });
    box.addEventListener("change", () => table.toggleColumn(column.field));
    label.append(box, ` ${column.title}`);
    list.append(label);
  }
  menu.append(list);
  document.addEventListener("click", (event) => menu.contains(event.target) || menu.removeAttribute("open"));
  return menu;
}

function gridLines(table, grid) {
  const visible = table.getColumns().filter((column) => column.isVisible()).map((column) => column.getField());
  const columns = visible.map((field) => grid.columns.find((column) => column.field === field));
  const rows = table.getData("active").map((item) => columns.map((column) => shown(column, item[column.field])));
  return { head: columns.map((column) => column.title), rows, numbers: columns.map((column) => column.format !== "text") };
}

/* Small tables stay what the page has, and are sorted by their headings. */
for (const table of document.querySelectorAll("table")) {
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (head) sortBy(table, head);
  });
  const tools = document.createElement("div");
  tools.className = "tools quiet";
  tools.append(...copyButtons(() => tableLines(table)));
  table.parentElement.after(tools);
}

function tableLines(table) {
  const text = (cell) => cell.innerText.replace(/\s+/g, " ").trim();
  const heads = [...table.tHead.rows[0].cells];
  return {
    head: heads.map(text),
    rows: [...table.tBodies[0].rows].map((row) => [...row.cells].map(text)),
    numbers: heads.map((head) => head.classList.contains("number")),
  };
}

function sortBy(table, head) {
  const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
  const key = (row) => row.cells[head.cellIndex].dataset.order;
  const rows = [...table.tBodies[0].rows].sort((a, b) => compare(key(a), key(b), direction));
  table.tBodies[0].append(...rows);
}

/* Numbers by value, words by alphabet, numbers before words, cells without a value last in either direction. */
function compare(a, b, direction) {
  if (a === "" || b === "") return (a === "") - (b === "");
  const numbers = !isNaN(a) && !isNaN(b);
  return direction * (numbers ? a - b : a.localeCompare(b, undefined, { numeric: true }));
}

function button(text, title) {
  return Object.assign(document.createElement("button"), { type: "button", textContent: text, title });
}

function copyButtons(lines) {
  return Object.entries({ LaTeX: asLatex, Markdown: asMarkdown, CSV: asCsv }).map(([name, written]) => {
    const copy = button(name, `copy the table as ${name}`);
    copy.setAttribute("aria-label", copy.title);
    copy.addEventListener("click", async () => {
      await copied(written(lines()));
      copy.textContent = "copied";
      setTimeout(() => (copy.textContent = name), 1200);
    });
    return copy;
  });
}

/* A page that is opened as a file may not have the clipboard's own interface. */
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

function asCsv({ head, rows }) {
  const cell = (text) => (/[",\n]/.test(text) ? `"${String(text).replaceAll('"', '""')}"` : text);
  return [head, ...rows].map((row) => row.map(cell).join(",")).join("\n") + "\n";
}

function asMarkdown({ head, rows, numbers }) {
  const line = (row) => `| ${row.map((text) => String(text).replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(head), line(numbers.map((number) => (number ? "---:" : "---"))), ...rows.map(line)].join("\n") + "\n";
}

const LATEX = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "−": "$-$", "–": "--",
  "→": "$\\to$", "×": "$\\times$", "…": "\\ldots{}", "<": "$<$", ">": "$>$", "\u00a0": "~" };

function asLatex({ head, rows, numbers }) {
  const cell = (text) => String(text).replace(/[&%$#_{}]|[\\~^−–→×…<>\u00a0]/g, (mark) => LATEX[mark] ?? `\\${mark}`);
  const line = (row) => `${row.map(cell).join(" & ")} \\\\`;
  const columns = numbers.map((number) => (number ? "r" : "l")).join("");
  return [`\\begin{tabular}{${columns}}`, "\\toprule", line(head), "\\midrule", ...rows.map(line), "\\bottomrule", "\\end{tabular}", ""].join("\n");
}
