/** Of the page; colours are readable on both backgrounds and apart from each other without red and green. */
export const style = `
:root { --back: #fff; --text: #1b1f24; --quiet: #59636e; --line: #d8dee4; --card: #f6f8fa; --track: #eaeef2;
  --warn: #fff4d6; --warnline: #b58100;
  --pool0: #2563a8; --pool1: #d97b1e; --pool2: #2b8a7e; --pool3: #8a5bb5; --pool4: #b0467a; --shared: #77828e; --floor: #a33b2e; }
@media (prefers-color-scheme: dark) { :root { --back: #14181d; --text: #e6eaef; --quiet: #98a2ad; --line: #343c45;
  --card: #1d232a; --track: #262d35; --warn: #35290d; --warnline: #d9a520;
  --pool0: #5b9bdf; --pool1: #f0a04b; --pool2: #4db8a9; --pool3: #b48ade; --pool4: #dd7aa8; --shared: #929da9; --floor: #dc6b5c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 24px 20px 60px; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0 0 2px; font-size: 26px; }
h2 { margin: 34px 0 10px; font-size: 18px; }
.quiet { margin: 6px 0; color: var(--quiet); font-size: 13px; }
.warning { margin: 10px 0; padding: 8px 12px; background: var(--warn); border-left: 4px solid var(--warnline); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 12px; margin: 18px 0; }
.card { padding: 12px 14px; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.card h2 { margin: 0; font-size: 13px; font-weight: 600; color: var(--quiet); }
.card .value { margin: 2px 0; font-size: 19px; font-weight: 650; font-variant-numeric: tabular-nums; }
.card .quiet { margin: 0; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 26px 0 6px; padding: 0; list-style: none; font-size: 13px; }
.legend i { display: inline-block; width: 12px; height: 12px; margin-right: 6px; border-radius: 2px; vertical-align: -1px; }
.pool0 { fill: var(--pool0); background: var(--pool0); } .pool1 { fill: var(--pool1); background: var(--pool1); }
.pool2 { fill: var(--pool2); background: var(--pool2); } .pool3 { fill: var(--pool3); background: var(--pool3); }
.pool4 { fill: var(--pool4); background: var(--pool4); } .shared { fill: var(--shared); background: var(--shared); }
.floor { fill: var(--floor); background: var(--floor); } .track { fill: var(--track); } .mark { fill: var(--text); }
rect.perhaps { fill-opacity: .4; } i.perhaps { background: var(--pool2); opacity: .4; }
figure { margin: 18px 0 26px; }
figcaption { margin-bottom: 6px; font-weight: 600; }
.bar { display: grid; grid-template-columns: 220px 1fr 245px; gap: 12px; align-items: center; margin: 5px 0; font-size: 13px; }
.bar svg { display: block; width: 100%; height: 22px; border-radius: 3px; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; }
table { width: 100%; border-collapse: separate; border-spacing: 0; font-size: 13px; }
th, td { padding: 6px 10px; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
tr:last-child td { border-bottom: 0; }
th { background: var(--card); font-weight: 600; white-space: nowrap; }
th.number, td.number { text-align: right; white-space: nowrap; }
.total td { font-weight: 650; border-top: 2px solid var(--line); }
ul { margin: 6px 0; padding-left: 20px; } li { margin: 2px 0; overflow-wrap: anywhere; }
@media (max-width: 700px) { body { padding: 16px 12px 40px; } .cards { grid-template-columns: 1fr 1fr; gap: 8px; }
  .card { padding: 9px 10px; } .card .value { font-size: 15px; }
  th, td { padding: 5px 6px; } table { font-size: 12px; } #summary td.number { white-space: normal; }
  td:first-child, th:first-child { position: sticky; left: 0; min-width: 92px; max-width: 130px; overflow-wrap: anywhere; background: var(--back); }
  th:first-child { background: var(--card); }
  .bar { grid-template-columns: 1fr auto; gap: 2px 8px; margin: 9px 0; } .bar svg { grid-column: 1 / -1; grid-row: 2; height: 16px; } }
@media print { body { max-width: none; padding: 0; font-size: 11px; } .wide { overflow: visible; border: 0; }
  table { font-size: 10px; } th, td { padding: 3px 5px; } td.number { white-space: normal; } figure, tr, .cards { break-inside: avoid; } h2, figcaption { break-after: avoid; }
  .cards { grid-template-columns: repeat(5, 1fr); gap: 6px; } .card { padding: 6px 8px; } .card .value { font-size: 13px; } .quiet { font-size: 10px; }
  .bar { font-size: 10px; grid-template-columns: 170px 1fr 190px; margin: 2px 0; } .bar svg { height: 14px; } figure { margin: 10px 0; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
`;
