"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.value;
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        // What has no number comes last, whichever way is sorted.
        if ((x === undefined) !== (y === undefined)) return x === undefined ? 1 : -1;
        const order = x === undefined
          ? a.cells[column].textContent.localeCompare(b.cells[column].textContent, undefined, { numeric: true })
          : Number(x) - Number(y);
        return up ? order : -order;
      });
      body.append(...rows);
    });
  });
}
for (const card of document.querySelectorAll(".card")) {
  const compare = card.querySelector(".compare");
  if (!compare) continue;
  const slide = card.querySelector(".slide");
  const move = (share) => compare.style.setProperty("--at", `${100 * share}%`);
  slide.addEventListener("input", () => move(slide.value / 100));
  const drag = (event) => {
    const box = compare.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    slide.value = 100 * share;
    move(share);
  };
  compare.addEventListener("pointerdown", (event) => {
    compare.setPointerCapture(event.pointerId);
    drag(event);
  });
  compare.addEventListener("pointermove", (event) => {
    if (event.buttons) drag(event);
  });
  const choice = card.querySelector("select");
  if (choice) {
    const left = compare.querySelector(".under");
    const shown = { given: left.src, truth: card.dataset.truth };
    choice.addEventListener("change", () => {
      left.src = shown[choice.value];
    });
  }
}
