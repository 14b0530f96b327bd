"use strict";
(() => {
  const root = document.documentElement;
  const kept = { get: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
                 set: (value) => { try { localStorage.setItem("theme", value); } catch { /* a file may have no place for it */ } } };
  const theme = document.getElementById("theme");
  const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const paint = () => { if (theme) { theme.textContent = isDark() ? "Light" : "Dark"; theme.hidden = false; } };
  if (kept.get()) root.dataset.theme = kept.get();
  if (theme) theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; kept.set(root.dataset.theme); paint(); });
  paint();

  const ago = (moment) => {
    const seconds = Math.max(0, (Date.now() - Date.parse(moment)) / 1000);
    for (const [size, word] of [[86400, "day"], [3600, "hour"], [60, "minute"]])
      if (seconds >= size) { const number = Math.floor(seconds / size); return `${number} ${word}${number === 1 ? "" : "s"} ago`; }
    return "just now";
  };
  const ages = () => { for (const each of document.querySelectorAll("time[datetime]")) each.textContent = `${each.dataset.shown || (each.dataset.shown = each.textContent)} (${ago(each.dateTime)})`; };
  ages();

  const table = document.querySelector("table.hosts");
  if (!table) return;
  const filter = document.getElementById("filter"), state = document.getElementById("state"), kind = document.getElementById("kind");
  const count = document.getElementById("count"), controls = document.getElementById("controls");
  controls.hidden = false;
  let rows = [];
  const prepare = () => { rows = [...table.tBodies[0].rows].map((row) => ({ row, text: row.textContent.toLowerCase(), state: row.dataset.state, kinds: row.dataset.kinds.split(" ") })); };
  const show = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let number = 0;
    for (const each of rows) {
      const fits = words.every((word) => each.text.includes(word)) && (!state.value || each.state === state.value) && (!kind.value || each.kinds.includes(kind.value));
      if (each.row.hidden === fits) each.row.hidden = !fits;
      number += fits;
    }
    count.textContent = `${number} of ${rows.length} hosts shown`;
  };
  const order = { column: null, down: false };
  const sort = () => {
    if (order.column === null) return;
    const value = (row) => { const cell = row.cells[order.column]; return cell.dataset.value ?? cell.textContent; };
    const compare = new Intl.Collator(undefined, { numeric: true }).compare;
    const sorted = rows.map((each) => [value(each.row), each.row]).sort((one, other) => compare(one[0], other[0]) * (order.down ? -1 : 1));
    table.tBodies[0].append(...sorted.map((each) => each[1]));
    [...table.tHead.rows[0].cells].forEach((cell, number) => { if (number === order.column) cell.setAttribute("aria-sort", order.down ? "descending" : "ascending"); else cell.removeAttribute("aria-sort"); });
  };
  for (const each of [filter, state, kind]) each.addEventListener("input", show);
  table.tHead.addEventListener("click", (event) => {
    const cell = event.target.closest("th");
    if (!cell) return;
    order.down = order.column === cell.cellIndex && !order.down;
    order.column = cell.cellIndex;
    sort();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(input|select|textarea)$/i.test(event.target.tagName)) { event.preventDefault(); filter.focus(); }
  });
  prepare();
  show();

  const events = document.querySelector("meta[name=events]");
  if (!events || !window.EventSource) return;
  const said = document.getElementById("refreshed");
  new EventSource(events.content).addEventListener("refresh", async () => {
    try {
      const answer = await fetch(location.pathname, { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const focused = document.activeElement?.closest("tbody tr")?.dataset.host;
      for (const id of ["taken", "summary", "pictures", "fleet"]) {
        const [old, now] = [document.getElementById(id), fresh.getElementById(id)];
        if (old && now) old.replaceWith(now);
      }
      table.tBodies[0].replaceWith(fresh.querySelector("table.hosts").tBodies[0]);
      prepare(); sort(); show(); ages();
      if (focused) for (const each of rows) if (each.row.dataset.host === focused) each.row.querySelector("a").focus();
      said.textContent = "";
    } catch {
      said.textContent = "The page could not be refreshed; what it shows is as old as it says.";
    }
  });
})();
