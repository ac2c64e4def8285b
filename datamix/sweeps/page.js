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
const text = value => new Option(value).innerHTML; // escaped
function panel(title, lines) { // each a colour, dashes, and points of a step and a value
  lines = lines.map(([color, dashes, points]) => [color, dashes, points.filter(point => Number.isFinite(point[1]))]);
  const points = lines.flatMap(line => line[2]);
  const values = points.length ? points.map(point => point[1]) : [0];
  const last = points.reduce((most, point) => Math.max(most, point[0]), 1);
  let low = Math.min(...values), high = Math.max(...values);
  if (low > 0 && low < high / 2) low = 0;
  high += 0.04 * (high - low) || 1;
  const place = ([x, y]) => `${(55 + 295 * x / last).toFixed(1)} ${(215 - 190 * (y - low) / (high - low)).toFixed(1)}`;
  const parts = [0, 1, 2, 3, 4].map(i => {
    const y = 215 - 47.5 * i, value = parseFloat((low + (high - low) * i / 4).toPrecision(3));
    return `<path d="M55 ${y}H350" stroke="#ddd"/><text x="50" y="${y + 4}" text-anchor="end">${value}</text>`;
  });
  for (const [color, dashes, points] of lines) if (points.length) {
    const path = `d="M${points.map(place).join("L")}" stroke="${color}" stroke-dasharray="${dashes}"`;
    parts.push(`<path ${path} fill="none" stroke-width="1.6"/>`);
  }
  const end = `<text x="350" y="232" text-anchor="end">step ${last.toLocaleString("en")}</text>`;
  const head = `<text x="55" y="14">${text(title)}</text>`;
  return `<svg class="curves" viewBox="0 0 360 240">${head}${parts.join("")}${end}</svg>`;
}
function curves({tests, losses, unit, family, adapt, colors}) {
  const of = (name, factor) => Object.entries(colors).map(([source, color]) =>
    [color, "none", tests.map(test => [test.step, factor * (test[`${name}/${source}`] ?? NaN)])]);
  const [factor, unitShown] = family === "accuracy" ? [100, ", %"] : [1, ""];
  const label = `${family.replaceAll("_", " ")} on the test split${unitShown}`;
  const panels = [panel(unit, [["#555555", "4 3", losses], ...of("loss", 1)]), panel(label, of(family, factor))];
  if (adapt) {
    const ends = [...adapt.steps, tests.at(-1).step];
    const steps = (values, color, dashes) =>
      [color, dashes, values.flatMap((value, i) => [[ends[i], value], [ends[i + 1], value]])];
    panels.push(panel(`weight by adapt=${adapt.rule}; dotted: share of the records`, Object.entries(colors).flatMap(
      ([name, color]) => [steps(adapt.weights[name], color, "none"), steps(adapt.shares[name], color, "2 3")])));
  }
  const legend = Object.entries(colors).map(([name, color]) => `<span style="color:${color}">■ ${text(name)}</span>`);
  return `<p>${legend.join(" ")}, dashed: in training</p>${panels.join("")}`;
}
for (const job of document.querySelectorAll("details")) job.addEventListener("toggle", () => {
  const data = job.querySelector("script"); // which is there until it is drawn
  if (data) data.outerHTML = curves(JSON.parse(data.textContent));
});
