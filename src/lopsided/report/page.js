"use strict";
// Tables are plain without this script; with it their headers sort and a field filters the rows.

const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

function compare(kind, direction) {
  return (one, other) => {
    const [a, b] = [one.key, other.key];
    if (a === null || b === null) return (a === null) - (b === null); // what is undefined stays below
    return direction * (kind === "text" ? collator.compare(a, b) : a - b);
  };
}

function keyed(row, column, kind) {
  const text = row.cells[column].textContent.trim();
  return { row, key: kind === "text" ? text : text === "-" ? null : Number(text) };
}

function sortBy(table, header) {
  const kind = header.dataset.kind ?? "number";
  const first = kind === "text" ? "ascending" : "descending";
  const other = first === "ascending" ? "descending" : "ascending";
  const order = header.getAttribute("aria-sort") === first ? other : first;
  for (const each of table.tHead.querySelectorAll("[aria-sort]")) each.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", order);
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => keyed(row, Number(header.dataset.column), kind));
  rows.sort(compare(kind, order === "ascending" ? 1 : -1));
  body.append(...rows.map(({ row }) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const header of table.tHead.querySelectorAll("[data-column]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sortBy(table, header));
    header.append(button);
  }
}

for (const input of document.querySelectorAll("input[data-table]")) {
  const rows = [...document.getElementById(input.dataset.table).tBodies[0].rows];
  const status = input.parentElement.querySelector("[role=status]");
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLocaleLowerCase();
    for (const row of rows) row.hidden = !row.cells[0].textContent.toLocaleLowerCase().includes(wanted);
    const shown = rows.filter((row) => !row.hidden).length;
    status.textContent = wanted ? `${shown} of ${rows.length} rows` : "";
  });
  input.parentElement.hidden = false;
}
