"use strict";
document.documentElement.classList.add("js");

// a cell with videos: they open in the dialog
const dialog = document.querySelector("dialog");
const cards = [...document.querySelectorAll("main figure[data-in]")];
function show(cell) {
  const found = cards.filter((card) => card.dataset.in.split(" ").includes(cell.dataset.show));
  const left = cell.dataset.n - found.length;
  dialog.querySelector("h2").textContent = cell.dataset.title;
  dialog.querySelector("p").textContent =
    cell.dataset.n + (cell.dataset.n === "1" ? " video" : " videos") + (left ? `, ${left} not here; --all shows all` : "");
  dialog.querySelector(".gallery").replaceChildren(...found.map((card) => card.cloneNode(true)));
  dialog.showModal();
}
for (const cell of document.querySelectorAll("[data-show]")) {
  cell.tabIndex = 0;
  cell.setAttribute("role", "button");
  cell.addEventListener("click", () => show(cell));
  cell.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      show(cell);
    }
  });
}
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());

// a click on a column sorts by it: numbers from the highest, the other way round at the next click
for (const table of document.querySelectorAll(".sortable")) {
  const titles = [...table.tHead.rows[0].cells];
  titles.forEach((title, column) => {
    const sort = () => {
      const value = (row) => row.cells[column].textContent.trim();
      const isNumber = [...table.tBodies[0].rows].every((row) => !value(row) || !isNaN(parseFloat(value(row))));
      const wasDescending = title.getAttribute("aria-sort") === "descending";
      const wasAscending = title.getAttribute("aria-sort") === "ascending";
      const order = wasDescending || (!isNumber && !wasAscending) ? "ascending" : "descending";
      const compare = isNumber
        ? (a, b) => (parseFloat(value(a)) || 0) - (parseFloat(value(b)) || 0)
        : (a, b) => value(a).localeCompare(value(b));
      const rows = [...table.tBodies[0].rows].sort(compare);
      titles.forEach((other) => other.removeAttribute("aria-sort"));
      title.setAttribute("aria-sort", order);
      table.tBodies[0].append(...(order === "ascending" ? rows : rows.reverse()));
    };
    title.tabIndex = 0;
    title.addEventListener("click", sort);
    title.addEventListener("keydown", (event) => event.key === "Enter" && sort());
  });
}
