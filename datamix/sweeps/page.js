for (const head of document.querySelectorAll("th")) head.querySelector("button").addEventListener("click", () => {
  const down = head.getAttribute("aria-sort") === "ascending", body = head.closest("table").tBodies[0];
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const numeric = head.classList.contains("number");
  const text = row => row.cells[head.cellIndex].dataset.value ?? row.cells[head.cellIndex].textContent;
  const value = row => numeric ? parseFloat(text(row).replaceAll(",", "")) : text(row); // of a mean ± its deviation
  const missing = row => Number.isNaN(value(row)) || value(row) === "";
  const compare = (a, b) => value(a).localeCompare(value(b), undefined, {numeric: true});
  const order = (a, b) => missing(a) - missing(b)
    || (down ? -1 : 1) * (numeric ? value(a) - value(b) : compare(a, b));
  body.append(...[...body.rows].sort(order));
});
for (const link of document.querySelectorAll("td a")) link.addEventListener("click", () => {
  document.querySelector(link.getAttribute("href")).open = true;
});
document.querySelector("#filter").addEventListener("input", event => {
  const words = event.target.value.toLowerCase().split(/\s+/);
  for (const row of document.querySelector("#jobs").tBodies[0].rows) {
    const text = [...row.cells].map(cell => cell.textContent).join(" ").toLowerCase();
    row.hidden = !words.every(word => text.includes(word));
  }
});
