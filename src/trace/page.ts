import { createSha256 } from "../crypto.ts";
import { isWait, PHASES, phasesOf, SUBJECTS, subjectOf } from "../plan/phase.ts";
import { type Call, type Line, printResult, printTime, sumUp } from "./line.ts";
import { SCRIPT } from "./page-script.ts";
import { STYLE } from "./page-style.ts";
import { printOutcome } from "./render.ts";
import { type Scale, scaleOf } from "./scale.ts";

export interface Page {
  /** What the container is called. */
  title: string;
  /** Why it failed. */
  failure?: { message: string; hint?: string; from?: string; code?: string; step?: string; index?: number };
}

/**
 * A trace as a page for the browser, in one file that fetches nothing: the sides are lanes, steps bars to scale, waits
 * hatched; below them every step with its calls. It can be read without its script, which adds zoom and keys.
 */
export function tracePage(lines: readonly Line[], { title, failure }: Page): string {
  const scale = scaleOf(lines);
  const { reached, steps, calls, durationNs } = sumUp(lines);
  const startedAt = lines
    .find(({ at }) => at !== undefined)
    ?.at?.replace("T", " ")
    .replace(/\.\d+Z$/, " UTC");
  const failed = lines.find(({ outcome }) => outcome === "failed");
  const [first] = lines;
  const added = first?.trace?.startsWith("exec") === true;
  const policy = `default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-${sha256(SCRIPT)}'`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="Caisson">
<title>${text(title)}: how it was ${added ? "added" : "made"}</title>
<style>${STYLE}</style>
</head>
<body>
<header>
<h1><small>How ${added ? "a process was added to" : "a container was made:"}</small> ${text(title)}</h1>
<dl>
<div class="${failed === undefined ? "" : "bad"}"><dt>outcome</dt><dd>${failed === undefined ? "as planned" : `step ${failed.index} failed`}</dd></div>
<div><dt>took</dt><dd>${printTime(durationNs)}</dd></div>
<div><dt>steps</dt><dd>${reached === steps ? steps : `${reached} of ${steps}`}</dd></div>
<div><dt>system calls</dt><dd>${calls}</dd></div>
${startedAt === undefined ? "" : `<div><dt>began</dt><dd>${text(startedAt)}</dd></div>\n`}</dl>
</header>
<main>
${failure === undefined ? "" : failureBox(failure)}${timeline(lines, scale)}
${stepList(lines, scale)}
</main>
<footer>
<p>A <b>step</b> is one intention of the plan, which was compiled from the container's definition before anything ran; the
pointer beside it is the part of the definition that asks for it. Its <b>calls</b> are what the kernel was really asked,
and what it answered. Bars are to scale${scale.breaks.length === 0 ? "" : ", but for the pauses marked ⫽"}; hatched ones wait. The host is the program
that was called, init the small one that goes inside and becomes the container's.</p>
</footer>
<div id="tip" role="status" hidden></div>
<script>${SCRIPT}</script>
</body>
</html>
`;
}

function failureBox({ message, code, step, index, from, hint }: NonNullable<Page["failure"]>): string {
  const row = (name: string, value: string | undefined) =>
    value === undefined ? "" : `<div><dt>${name}</dt><dd>${text(value)}</dd></div>`;
  return `<section class="failure" aria-label="failure">
<h2>${text(message)}</h2>
<dl>${row("kernel", code === undefined ? undefined : `${code}${step === undefined ? "" : `, in step ${index}, ${step}`}`)}${row("because", from)}${row("hint", hint)}</dl>
</section>
`;
}

/** The picture: phases, a lane for each side, and an axis. */
function timeline(lines: readonly Line[], scale: Scale): string {
  const undone = lines.some(({ undo }) => undo === true);
  const lane = (name: string, says: string, body: string) =>
    `<div class="lane" role="group" aria-label="${name}"><b>${says}</b>${body}</div>`;
  const bars = (own: (line: Line) => boolean) =>
    lines.map((line, at) => (own(line) ? bar(line, at, scale) : "")).join("");
  const used = new Set(lines.map(subjectOf));
  const legend = Object.entries(SUBJECTS)
    .filter(([subject]) => used.has(subject as keyof typeof SUBJECTS)) // entries of the same table
    .map(([subject, name]) => `<li class="${subject}">${name}</li>`)
    .join("");
  return `<section class="timeline" aria-label="timeline">
<div class="tools">
<ul class="legend">${legend}<li class="wait">waits</li></ul>
<p class="zoom" hidden><button type="button" data-zoom="0.5" aria-label="zoom out">−</button><button type="button" data-zoom="0" aria-label="fit">fit</button><button type="button" data-zoom="2" aria-label="zoom in">+</button></p>
</div>
<div class="scroll" tabindex="-1"><div class="canvas">
<div class="phases">${phaseBands(lines, scale)}</div>
${lane("host", "host", `${hostWaits(lines, scale)}${bars(({ side, undo }) => side === "host" && undo !== true)}`)}
${lane(
  "init",
  "init",
  bars(({ side, undo }) => side === "init" && undo !== true),
)}
${
  undone
    ? lane(
        "taken back",
        "undo",
        bars(({ undo }) => undo === true),
      )
    : ""
}
<div class="axis">${axis(scale)}</div>
</div></div>
</section>`;
}

function bar(line: Line, at: number, scale: Scale): string {
  const { startedNs, durationNs = 0, index, step, outcome } = line;
  if (startedNs === undefined) return "";
  const kind = isWait(line) ? "wait" : subjectOf(line);
  const label = `${index} ${step}: ${line.says}; ${durationNs === 0 ? printOutcome(line) : printTime(durationNs)}`;
  return `<a class="bar ${kind} ${outcome}" href="#s${at}" data-ns="${durationNs}" style="${place(scale, startedNs, durationNs)}" aria-label="${text(label)}"></a>`;
}

/** While steps of init are carried out, the host waits for it to come to a turn. */
function hostWaits(lines: readonly Line[], scale: Scale): string {
  const host = lines.filter(({ side, undo, startedNs }) => side === "host" && undo !== true && startedNs !== undefined);
  return host
    .map(({ startedNs = 0, durationNs = 0 }, at) => {
      const from = startedNs + durationNs;
      const to = host[at + 1]?.startedNs ?? Number.POSITIVE_INFINITY;
      const working = lines.filter(
        (line) =>
          line.side === "init" &&
          !isWait(line) &&
          line.startedNs !== undefined &&
          line.startedNs > from &&
          line.startedNs < to,
      );
      const [first, last] = [working[0], working.at(-1)];
      if (first?.startedNs === undefined || last?.startedNs === undefined) return "";
      const end = Math.min(to, last.startedNs + (last.durationNs ?? 0));
      return `<i class="bar wait" style="${place(scale, from, end - from)}"></i>`;
    })
    .join("");
}

function phaseBands(lines: readonly Line[], scale: Scale): string {
  const phases = phasesOf(lines);
  return Object.entries(PHASES)
    .map(([phase, name]) => {
      const own = lines.filter(({ startedNs }, at) => phases[at] === phase && startedNs !== undefined);
      if (own.length === 0) return "";
      const start = Math.min(...own.map(({ startedNs = 0 }) => startedNs));
      const end = Math.max(...own.map(({ startedNs = 0, durationNs = 0 }) => startedNs + durationNs));
      return `<span class="phase" style="${place(scale, start, end - start)}" title="${name}, ${printTime(end - start)}"><span>${name}</span></span>`;
    })
    .join("");
}

function axis({ at, ticks, breaks }: Scale): string {
  const marks = ticks.map(
    ({ ns, level }) =>
      `<span${["", ' class="fine"', ' class="finest"'][level]} style="left:${percent(at(ns))}">${printTime(ns)}</span>`,
  );
  const cuts = breaks.map(
    ({ startNs, endNs }) =>
      `<em style="left:${percent(at(startNs))};width:${percent(at(endNs) - at(startNs))}" title="a pause of ${printTime(endNs - startNs)}">⫽ ${printTime(endNs - startNs)}</em>`,
  );
  return [...marks, ...cuts].join("");
}

/** Every step, under its phase, with its calls folded away. */
function stepList(lines: readonly Line[], scale: Scale): string {
  const phases = phasesOf(lines);
  const rows = lines.map((line, at) => {
    const phase = phases[at];
    const head = phase === undefined || phase === phases[at - 1] ? "" : `<h2>${PHASES[phase]}</h2>\n`;
    return head + stepRow(line, at, scale);
  });
  return `<section class="steps" aria-label="steps">
<p class="keys" hidden><kbd>↑</kbd> <kbd>↓</kbd> from step to step, <kbd>Enter</kbd> opens one, <kbd>+</kbd> <kbd>−</kbd> <kbd>0</kbd> zoom <button type="button" data-open="all">open all</button><button type="button" data-open="none">close all</button></p>
${rows.join("\n")}
</section>`;
}

function stepRow(line: Line, at: number, scale: Scale): string {
  const { index, side, step, says, why, from, undo, outcome, startedNs, durationNs, calls } = line;
  const kind = isWait(line) ? "wait" : subjectOf(line);
  const said = printOutcome(line);
  const mini =
    startedNs === undefined
      ? ""
      : `<i class="bar ${kind} ${outcome}" style="${place(scale, startedNs, durationNs ?? 0)}"></i>`;
  return `<details id="s${at}" class="step ${kind} ${outcome}">
<summary><span class="index">${index}</span><span class="side">${undo === true ? "undo" : side}</span><span class="says">${text(says)}</span><code class="from">${text(pointerOf(from))}</code><span class="gantt">${mini}</span><span class="took">${durationNs === undefined ? (outcome === "unreached" ? "" : "…") : printTime(durationNs)}</span><span class="outcome">${said === "ok" ? "" : text(said)}</span></summary>
<div class="detail">
<p class="why"><b>${text(step)}</b> ${text(why)}</p>
${calls.length === 0 ? `<p class="none">${outcome === "unreached" ? "It was not reached." : "No system call was reported."}</p>` : callTable(line)}
</div>
</details>`;
}

function callTable({ calls, startedNs = 0, durationNs = 0 }: Line): string {
  const row = (call: Call) => {
    const { name, shown, durationNs: tookNs } = call;
    const within = Math.max(durationNs, 1);
    const left = ((call.startedNs - startedNs) / within) * 100;
    const width = ((tookNs ?? 0) / within) * 100;
    return `<tr class="${call.error === undefined ? "" : "refused"}"><td><code><b>${text(name)}</b>(${shown.map(text).join(", ")})</code></td><td><code>${text(printResult(call))}</code></td><td class="number">${tookNs === undefined ? "" : printTime(tookNs)}</td><td class="gantt"><i class="bar" style="left:${percent(left)};width:${percent(width)}"></i></td></tr>`;
  };
  return `<table><thead><tr><th>system call</th><th>result</th><th class="number">took</th><th></th></tr></thead><tbody>${calls.map(row).join("")}</tbody></table>`;
}

function place({ at }: Scale, startNs: number, durationNs: number): string {
  const left = at(startNs);
  return `left:${percent(left)};width:${percent(at(startNs + durationNs) - left)}`;
}

function percent(value: number): string {
  return `${Number(value.toFixed(4))}%`;
}

function pointerOf(from: string): string {
  return from === "/spec" ? "/" : from.replace(/^\/spec(?=\/)/, "");
}

/** Names and paths come from images and from whoever started the container: none of it is markup. */
function text(words: string): string {
  return words.replace(/[&<>"'\p{Cc}]/gu, (character) =>
    /\p{Cc}/u.test(character) ? "\ufffd" : `&#${character.charCodeAt(0)};`,
  );
}

function sha256(script: string): string {
  return createSha256().update(script).digest("base64");
}
