"use strict";
// What a page does beyond being read; without it everything is there, side by side.

// Baseline and compressed in one picture, a slider between them, over the photograph.
for (const picture of document.querySelectorAll(".picture")) {
  const named = Object.fromEntries([...picture.querySelectorAll("img[data-kind]")].map((img) => [img.dataset.kind, img]));
  const first = named.baseline || named.label;
  if (!first || !named.compressed || !named.image) continue;
  const box = document.createElement("details");
  box.className = "viewer";
  box.appendChild(document.createElement("summary")).textContent = "compare in one picture";
  const stage = box.appendChild(document.createElement("div"));
  stage.className = "layers";
  const layers = [named.image, first, named.compressed].map((img) => {
    const copy = new Image();
    copy.src = img.src;
    copy.alt = "";
    return stage.appendChild(copy);
  });
  const names = named.baseline ? ["baseline", "compressed"] : ["label", "prediction"];
  const slider = (label, value, change) => {
    const line = box.appendChild(document.createElement("label"));
    line.append(label[0]);
    const input = line.appendChild(document.createElement("input"));
    Object.assign(input, { type: "range", min: 0, max: 100, value });
    line.append(label[1]);
    input.addEventListener("input", () => change(input.value));
    change(value);
  };
  slider(names, 50, (at) => {
    layers[1].style.clipPath = `inset(0 ${100 - at}% 0 0)`;
    layers[2].style.clipPath = `inset(0 0 0 ${at}%)`;
    stage.style.setProperty("--at", `${at}%`);
  });
  slider(["photograph", "classes"], 60, (share) => {
    layers[1].style.opacity = layers[2].style.opacity = share / 100;
  });
  picture.append(box);
}

// A picture that is clicked fills the window; pixels stay sharp.
const zoom = document.createElement("dialog");
zoom.className = "zoom";
zoom.addEventListener("click", () => zoom.close());
document.body.append(zoom);
for (const img of document.querySelectorAll(".picture figure img, img.samples")) {
  img.tabIndex = 0;
  const open = () => {
    const copy = new Image();
    copy.src = img.src;
    copy.alt = img.alt;
    zoom.replaceChildren(copy);
    zoom.showModal();
  };
  img.addEventListener("click", open);
  img.addEventListener("keydown", (event) => event.key === "Enter" && open());
}

// Tables of class "sorted": a heading that is clicked sorts by its column, a text filters the rows.
for (const table of document.querySelectorAll("table.sorted")) {
  const body = table.tBodies[0];
  const number = (cell) => parseFloat((cell.dataset.value || cell.textContent).replace(/[^-+.\d].*$/, ""));
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    if (!heading.textContent) return;
    heading.tabIndex = 0;
    const sort = () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const order = (a, b) => {
        const [x, y] = [a, b].map((row) => row.cells[Math.min(column, row.cells.length - 1)]);
        const found = number(x) - number(y) || x.textContent.localeCompare(y.textContent);
        return down ? -found : found;
      };
      body.append(...[...body.rows].sort(order));
    };
    heading.addEventListener("click", sort);
    heading.addEventListener("keydown", (event) => event.key === "Enter" && sort());
  });
  const filter = document.createElement("input");
  Object.assign(filter, { type: "search", placeholder: "filter", className: "filter" });
  filter.setAttribute("aria-label", "show only rows with this text");
  filter.addEventListener("input", () => {
    for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(filter.value.toLowerCase());
  });
  table.parentElement.before(filter);
}

// A command is copied by a click.
for (const text of document.querySelectorAll("pre.copy")) {
  const button = document.createElement("button");
  button.textContent = "copy";
  button.addEventListener("click", () => {
    const range = document.createRange();
    range.selectNodeContents(text.firstChild);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    document.execCommand("copy");
    button.textContent = "copied";
  });
  text.append(button);
}
