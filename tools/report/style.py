"""What a report looks like, and the few lines of script that sort its tables."""

CSS = """
:root { color-scheme: light dark; --ink: #1b2430; --soft: #5b6675; --line: #dfe5ec; --faint: #b9c3cf; --page: #ffffff;
  --card: #f5f8fb; --s1: #2166ac; --s2: #d6604d; --s3: #1b7837; --s4: #8a5aa8; --s5: #b07d1a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ef; --soft: #9aa7b6; --line: #2d3947; --faint: #56657a;
  --page: #12171d; --card: #1b232d; --s1: #7fb0e0; --s2: #f08a76; --s3: #7cc98e; --s4: #c39bdc; --s5: #e0b45c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 16px; font: 15px/1.45 system-ui, sans-serif; color: var(--ink);
  background: var(--page); }
h1 { font-size: 1.5rem; margin: 8px 0; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin: 28px 0 8px; }
p, figcaption { color: var(--soft); margin: 4px 0; overflow-wrap: anywhere; }
.cards { display: grid; gap: 10px; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
.card { background: var(--card); border-radius: 8px; padding: 10px 12px; }
.card b { display: block; font-size: 1.35rem; } .card small { color: var(--soft); }
.bar { background: var(--line); border-radius: 3px; height: 8px; min-width: 60px; overflow: hidden; }
.bar i { background: var(--s1); display: block; height: 100%; }
.charts { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); }
figure { margin: 0; background: var(--card); border-radius: 8px; padding: 10px; } svg { width: 100%; height: auto; }
.table { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: 4px 8px; text-align: right; vertical-align: middle; }
td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; white-space: normal; min-width: 8rem; }
.text { text-align: left; white-space: normal; min-width: 9rem; }
th button { all: unset; cursor: pointer; font-weight: 600; } th button:focus-visible { outline: 2px solid var(--s1); }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
pre { background: var(--card); border-radius: 8px; overflow-x: auto; padding: 10px; white-space: pre-wrap;
  overflow-wrap: anywhere; font-size: 0.85rem; }
@media (max-width: 520px) { table { font-size: 0.85rem; } th, td { padding: 4px; } th:has(+ .text),
  td:has(> .bar) { display: none; }
  th:first-child, td:first-child { min-width: 6rem; } .text { min-width: 5rem; } }
@media print { body { max-width: none; font-size: 11px; } details, .no-print { display: none; }
  figure, .card, tr { break-inside: avoid; } }
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sorts")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const rising = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const number = row => Number(key(row));
    const rows = [...table.tBodies[0].rows];
    const numbers = rows.every(row => key(row) !== "" && !Number.isNaN(number(row)));
    rows.sort((a, b) => (numbers ? number(a) - number(b) : key(a).localeCompare(key(b))) * (rising ? 1 : -1));
    table.tBodies[0].append(...rows);
  }));
}
"""
