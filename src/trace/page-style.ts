/** The page's style, for light and dark, screen and paper. */
export const STYLE = `
:root {
  --paper: #fcfcfa; --card: #ffffff; --ink: #1c2430; --faint: #667085; --line: #e4e6ea; --hover: #f3f5f8;
  --cgroups: #2f6fd0; --files: #12897b; --namespaces: #7a4fd0; --network: #c8731a; --privileges: #c63d68;
  --hooks: #7d7f1c; --process: #52606f; --bad: #c62828; --bad-paper: #fdf0ef; --wait: #b6bec9;
  --sans: system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "DejaVu Sans", sans-serif;
  --mono: ui-monospace, "SF Mono", "Cascadia Code", Menlo, "DejaVu Sans Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #11161d; --card: #171e27; --ink: #e3e8ef; --faint: #93a0b2; --line: #28323f; --hover: #1e2731;
    --cgroups: #6ea2f0; --files: #3fbfae; --namespaces: #a98bf0; --network: #e5a04e; --privileges: #ee7d9d;
    --hooks: #b9bb54; --process: #93a2b5; --bad: #ff8a80; --bad-paper: #331c1e; --wait: #465262;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 14px/1.45 var(--sans); }
header, main, footer { max-width: 1240px; margin: 0 auto; padding: 0 28px; }
header { display: flex; flex-wrap: wrap; gap: 12px 48px; align-items: end; justify-content: space-between; padding-top: 32px; }
h1 { margin: 0; font-size: 30px; line-height: 1.15; font-weight: 650; letter-spacing: -0.015em; overflow-wrap: anywhere; }
h1 small { display: block; font-size: 14px; font-weight: 400; letter-spacing: 0; color: var(--faint); margin-bottom: 2px; }
dl { margin: 0; display: flex; flex-wrap: wrap; gap: 8px 28px; }
dt { font-size: 12px; color: var(--faint); }
dd { margin: 0; font-size: 17px; font-weight: 600; font-variant-numeric: tabular-nums; }
.bad dd { color: var(--bad); }
section { margin: 22px 0; }
.failure { background: var(--bad-paper); border-left: 4px solid var(--bad); border-radius: 6px; padding: 14px 18px; }
.failure h2 { margin: 0 0 6px; font-size: 16px; color: var(--bad); overflow-wrap: anywhere; }
.failure dl { display: block; }
.failure dl div { display: flex; gap: 12px; }
.failure dt { width: 60px; flex: none; line-height: 22px; }
.failure dd { font-size: 14px; font-weight: 400; overflow-wrap: anywhere; }

.cgroups { --hue: var(--cgroups); } .files { --hue: var(--files); } .namespaces { --hue: var(--namespaces); }
.network { --hue: var(--network); } .privileges { --hue: var(--privileges); } .hooks { --hue: var(--hooks); }
.process { --hue: var(--process); } .wait { --hue: var(--wait); }

.timeline { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 14px 18px 10px; }
.tools { display: flex; gap: 16px; justify-content: space-between; align-items: center; margin-bottom: 12px; }
.tools p { margin: 0; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0; padding: 0; list-style: none; font-size: 12.5px; color: var(--faint); }
.legend li::before { content: ""; display: inline-block; width: 11px; height: 11px; border-radius: 3px; background: var(--hue); margin-right: 6px; vertical-align: -1px; }
.legend li.wait::before, .bar.wait { background: repeating-linear-gradient(135deg, var(--wait) 0 2px, transparent 2px 6px); box-shadow: inset 0 0 0 1px var(--wait); }
button { font: inherit; font-size: 12.5px; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 3px 10px; margin-left: 4px; cursor: pointer; }
button:hover { background: var(--hover); }
.zoom { white-space: nowrap; }
.scroll { overflow-x: auto; scrollbar-width: thin; }
.canvas { position: relative; min-width: 100%; padding-top: 2px; }
.phases, .lane, .axis { position: relative; margin-left: 44px; }
.phases { height: 26px; }
.phase { position: absolute; top: 0; bottom: 3px; font-size: 12px; color: var(--faint); border-top: 2px solid var(--line); padding-top: 3px; white-space: nowrap; overflow: clip; }
.phase span { position: sticky; left: 48px; padding: 0 8px 0 1px; }
.phase:hover { color: var(--ink); border-color: var(--faint); overflow: visible; z-index: 2; background: var(--card); }
.lane { height: 40px; margin-bottom: 6px; background: var(--hover); border-radius: 6px; }
.lane b { position: sticky; left: 0; z-index: 3; display: block; width: 44px; margin-left: -44px; line-height: 40px; font-size: 12.5px; font-weight: 500; color: var(--faint); background: var(--card); }
.bar { position: absolute; display: block; top: 0; bottom: 0; min-width: 2px; border-radius: 2px; background: var(--hue); }
.lane .bar { top: 5px; bottom: 5px; }
.lane .bar.wait { top: 12px; bottom: 12px; }
.lane a.bar:hover, .lane a.bar.current { top: 0; bottom: 0; z-index: 1; filter: saturate(1.3); }
.lane a.bar:focus-visible { z-index: 2; }
.bar.failed { background: var(--bad); box-shadow: 0 0 0 3px color-mix(in srgb, var(--bad) 30%, transparent); }
.lane .bar.begun:not(.wait) { opacity: 0.6; }
.axis { height: 24px; border-top: 1px solid var(--line); font-size: 11.5px; color: var(--faint); font-variant-numeric: tabular-nums; }
.axis span { position: absolute; padding: 4px 0 0 4px; border-left: 1px solid var(--line); height: 9px; white-space: nowrap; line-height: 15px; }
.axis .fine, .axis .finest { display: none; }
.canvas.near .axis .fine, .canvas.nearest .axis .finest { display: block; }
.axis em { position: absolute; top: 4px; text-align: center; font-style: normal; white-space: nowrap; overflow: visible; color: var(--ink); background: var(--card); line-height: 15px; z-index: 1; }

.steps h2 { font-size: 13px; font-weight: 600; color: var(--faint); margin: 24px 0 6px; padding-bottom: 5px; border-bottom: 1px solid var(--line); }
.keys { font-size: 12.5px; color: var(--faint); margin: 0; }
.keys button:first-of-type { margin-left: 18px; }
kbd { font: 11.5px var(--mono); border: 1px solid var(--line); border-bottom-width: 2px; border-radius: 4px; padding: 0 5px; background: var(--card); color: var(--ink); }
summary { display: grid; grid-template-columns: 30px 36px minmax(0, 1fr) minmax(0, 210px) 230px 66px 64px; gap: 0 10px; align-items: center; min-height: 27px; padding: 2px 6px; border-radius: 5px; cursor: pointer; list-style: none; }
summary::-webkit-details-marker { display: none; }
.step.current > summary, summary:hover { background: var(--hover); }
:focus-visible { outline: 2px solid var(--cgroups); outline-offset: 1px; }
.index, .side, .took, .number { font-variant-numeric: tabular-nums; color: var(--faint); font-size: 12.5px; }
.index, .took, .number { text-align: right; }
.says { border-left: 3px solid var(--hue); padding-left: 9px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.step[open] .says { white-space: normal; overflow-wrap: anywhere; font-weight: 600; }
.from { font: 11.5px var(--mono); color: var(--faint); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; direction: ltr; }
.gantt { position: relative; height: 12px; background: linear-gradient(90deg, var(--line) 1px, transparent 1px) 0 0 / 25% 100%; }
.outcome { font: 12px var(--mono); color: var(--faint); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.step.failed .outcome, .step.failed .took { color: var(--bad); font-weight: 600; }
.step.failed .says { border-color: var(--bad); color: var(--bad); }
.step.unreached { opacity: 0.5; }
.detail { margin: 2px 0 12px 82px; padding: 2px 0 6px 12px; border-left: 3px solid var(--line); }
.detail p { margin: 4px 0 8px; max-width: 76ch; color: var(--faint); }
.detail p b { color: var(--hue); font: 600 12.5px var(--mono); margin-right: 6px; }
.step.wait .detail p b { color: var(--faint); }
table { border-collapse: collapse; width: 100%; font-size: 12.5px; }
th { font-weight: 500; text-align: left; color: var(--faint); font-size: 12px; }
th, td { padding: 2px 12px 2px 0; vertical-align: baseline; }
th:nth-child(2) { min-width: 90px; }
td.gantt { width: 160px; min-width: 160px; height: 10px; padding: 0; background: none; }
td.gantt .bar { top: 6px; bottom: 6px; background: var(--hue); }
td code { font: 12px/1.5 var(--mono); overflow-wrap: anywhere; }
td code b { font-weight: 600; }
td.number, td:nth-child(2) { white-space: nowrap; }
.refused td:nth-child(2) { color: var(--bad); }
footer { color: var(--faint); font-size: 12.5px; padding-bottom: 40px; }
footer p { max-width: 92ch; border-top: 1px solid var(--line); padding-top: 14px; }
#tip { position: fixed; z-index: 5; max-width: 460px; background: var(--ink); color: var(--paper); font-size: 12.5px; padding: 6px 10px; border-radius: 6px; pointer-events: none; overflow-wrap: anywhere; }
@media (max-width: 900px) {
  header, main, footer { padding-left: 14px; padding-right: 14px; }
  summary { grid-template-columns: 26px 34px minmax(0, 1fr) 66px 60px; }
  summary .from, summary .gantt { display: none; }
  .detail { margin-left: 8px; }
  td.gantt { display: none; }
}
@media print {
  :root { --paper: #fff; --card: #fff; --ink: #000; --hover: #f5f5f5; color-scheme: light; }
  body { font-size: 10px; }
  header, main, footer { max-width: none; padding-left: 0; padding-right: 0; }
  .zoom, .keys, #tip { display: none !important; }
  .canvas { width: 100% !important; }
  .timeline, summary, tr { break-inside: avoid; }
  .steps h2 { break-after: avoid; }
  summary { min-height: 0; grid-template-columns: 22px 28px minmax(0, 1fr) 130px 130px 50px 60px; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
`;
