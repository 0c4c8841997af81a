"""The style sheet of the report's page."""

STYLE = """
:root { --ink: #1c2430; --soft: #5c6470; --line: #e3e6eb; --paper: #f5f6f8; --card: #fff; --good: #1f7a4d;
  --good-back: #e0f3e9; --bad: #b02a2a; --bad-back: #fbe4e4; --accent: #2f6fde; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
header { margin-bottom: 8px; }
.kicker { margin: 0; color: var(--accent); font-weight: 600; letter-spacing: .02em; }
h1 { margin: 4px 0 0; font-size: 30px; line-height: 1.2; display: flex; flex-wrap: wrap; gap: 12px;
  align-items: center; overflow-wrap: anywhere; }
h2 { margin: 0 0 14px; font-size: 18px; }
.lead { color: var(--soft); margin: 6px 0 18px; }
.badge { font-size: 12px; font-weight: 700; padding: 2px 10px; border-radius: 999px; white-space: nowrap; }
h1 .badge { font-size: 15px; padding: 4px 14px; }
.badge.good { color: var(--good); background: var(--good-back); }
.badge.bad { color: var(--bad); background: var(--bad-back); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 14px 16px;
  display: flex; flex-direction: column; }
.card .label { color: var(--soft); font-size: 13px; }
.card strong { font-size: 24px; line-height: 1.3; font-variant-numeric: tabular-nums; }
.card small { color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 20px 22px;
  margin-top: 16px; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)); gap: 20px;
  align-items: start; margin: 4px 0 12px; }
.chart { margin: 0; }
.chart svg { display: block; width: auto; max-width: 100%; height: auto; max-height: 420px; }
.scroll + .columns { margin-top: 18px; }
figcaption { color: var(--soft); font-size: 13px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--line); padding: 6px 10px; }
td { border-bottom: 1px solid var(--line); padding: 6px 10px; vertical-align: top; }
table.checks td:nth-child(n+2) { overflow-wrap: anywhere; }
details summary { cursor: pointer; color: var(--accent); padding: 6px 0; }
.note { color: var(--soft); font-size: 13.5px; }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 14px; }
.sample { margin: 0; border: 1px solid var(--line); border-radius: 10px; padding: 10px; }
.sample img { width: 100%; image-rendering: pixelated; border-radius: 6px; margin-bottom: 6px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 6px 18px; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --soft: #9aa4b2; --line: #2b323c; --paper: #12161c; --card: #1a2029; --good: #6fd6a3;
    --good-back: #173726; --bad: #ff9a9a; --bad-back: #431d1d; --accent: #86b0ff; }
  .chart { background: #fff; border-radius: 10px; padding: 8px; }
  .chart figcaption { color: #5c6470; }
}
@media print { body { background: #fff; } section, .card { break-inside: avoid; } }
"""
