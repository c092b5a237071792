import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Line } from "../../src/trace/line.ts";
import { tracePage } from "../../src/trace/page.ts";
import { type Browsing, browse, CHROMIUM } from "../support/browser.ts";
import {
  cleanUp,
  cleanUpFile,
  create,
  makeBundle,
  run,
  scratchDirectory,
  start,
  stateRoot,
  untilStopped,
} from "../support/bundle.ts";
import { engineCommand } from "../support/engine.ts";

/* The page of a trace, in a real browser: what a person sees and can do there. */

function caisson(...words: string[]): string {
  const [command = "", ...own] = engineCommand();
  const { status, stdout, stderr } = spawnSync(command, [...own, "--root", stateRoot(), "trace", ...words], {
    encoding: "utf8",
    maxBuffer: 1 << 26,
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  return stdout;
}

function linesOf(id: string): Line[] {
  return caisson("--json", id)
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
}

interface Bar {
  href: string;
  ns: number;
  left: number;
  width: number;
  lane: string;
}

const BARS = `[...document.querySelectorAll("a.bar")].map((bar) => {
  const { left, width } = bar.getBoundingClientRect();
  return { href: bar.getAttribute("href"), ns: Number(bar.dataset.ns), left, width, lane: bar.parentElement.ariaLabel };
})`;

describe.skipIf(CHROMIUM === "")("in Chromium (Debian's package chromium)", () => {
  let browsing: Browsing;
  let page: Page;
  let lines: Line[] = [];
  let address = "";

  beforeAll(async () => {
    const bundle = makeBundle((spec) => {
      spec.hostname = "<img src=x onerror=alert(1)>";
    });
    expect(run(bundle, {}, "--keep").status).toBe(0);
    const file = join(scratchDirectory(), "page.html");
    caisson("--html", file, bundle.id);
    lines = linesOf(bundle.id);
    address = pathToFileURL(file).href;
    browsing = await browse();
    page = browsing.page;
  });
  afterAll(async () => {
    await browsing.close();
    cleanUp();
    cleanUpFile();
  });

  test("it opens from a file without a complaint, and asks for nothing else", async () => {
    await page.goto(address);
    expect(browsing.complaints).toEqual([]);
    expect(browsing.requests).toEqual([address]);
    expect(await page.evaluate("document.querySelector('h1').innerText")).toContain("test-");
    expect(await page.evaluate("document.querySelectorAll('.step').length")).toBe(lines.length);
    expect(await page.evaluate("document.images.length")).toBe(0);
    expect(await page.evaluate("document.body.innerText")).toContain("names the machine <img src=x onerror=alert(1)>");
    expect(await page.evaluate("document.documentElement.scrollWidth <= innerWidth")).toBe(true);
  });

  test("every step with calls is a bar in its side's lane, in its place and to scale", async () => {
    await page.goto(address);
    for (const zoom of [0, 5]) {
      for (let i = 0; i < zoom; i++) await page.keyboard.press("+");
      const bars = await page.evaluate<Bar[]>(BARS);
      const timed = lines.flatMap((line, at) => (line.startedNs === undefined ? [] : [{ ...line, at }]));
      expect(bars.map(({ href, lane }) => [href, lane])).toEqual(
        expect.arrayContaining(timed.map(({ at, side }) => [`#s${at}`, side])),
      );
      expect(bars).toHaveLength(timed.length);
      const axis = await page.evaluate<{ left: number; width: number }>(
        "(({ left, width }) => ({ left, width }))(document.querySelector('.lane').getBoundingClientRect())",
      );
      const endNs = Math.max(...timed.map(({ startedNs = 0, durationNs = 0 }) => startedNs + durationNs));
      for (const { at, startedNs = 0, durationNs = 0 } of timed) {
        const bar = bars.find(({ href }) => href === `#s${at}`);
        expect(bar?.left).toBeCloseTo(axis.left + (startedNs / endNs) * axis.width, 0);
        // what would be too small to be seen is two pixels wide
        const width = Math.max(2, (durationNs / endNs) * axis.width);
        expect(Math.abs((bar?.width ?? 0) - width)).toBeLessThan(1);
      }
    }
  });

  test("a step opens by a click on its bar, with its reason and its calls", async () => {
    await page.goto(address);
    const at = lines.findIndex(({ step }) => step === "startInit");
    const { x, y } = await page.evaluate<{ x: number; y: number }>(
      `(({ left, top, width, height }) => ({ x: left + width / 2, y: top + height / 2 }))(document.querySelector('a[href="#s${at}"]').getBoundingClientRect())`,
    );
    await page.mouse.move(x, y);
    expect(await page.evaluate("document.getElementById('tip').innerText")).toContain("startInit: starts init");
    await page.mouse.click(x, y);
    expect(await page.evaluate(`document.getElementById("s${at}").open`)).toBe(true);
    const text = await page.evaluate<string>(`document.getElementById("s${at}").innerText`);
    expect(text).toContain("A small static program with no policy does the rest from inside.");
    for (const { name } of lines[at]?.calls ?? []) expect(text).toContain(`${name}(`);
    expect(
      await page.evaluate(
        `(({ top, bottom }) => top >= 0 && bottom <= innerHeight)(document.querySelector("#s${at} summary").getBoundingClientRect())`,
      ),
    ).toBe(true);
  });

  test("all of it can be reached by keys", async () => {
    await page.goto(address);
    const focused = () =>
      page.evaluate<string>(
        "document.activeElement.closest('.step')?.id ?? document.activeElement.getAttribute('href')",
      );
    for (let i = 0; i < 3; i++) await page.keyboard.press("ArrowDown");
    expect(await focused()).toBe("s2");
    await page.keyboard.press("ArrowUp");
    expect(await focused()).toBe("s1");
    await page.keyboard.press("Enter");
    expect(await page.evaluate("document.getElementById('s1').open")).toBe(true);
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowRight");
    expect(await focused()).toBe("#s1");
    expect(await page.evaluate("document.getElementById('tip').hidden")).toBe(false);
    await page.keyboard.press("Enter");
    expect(await focused()).toBe("s1");
    const width = () => page.evaluate<number>("document.querySelector('.canvas').clientWidth");
    const before = await width();
    await page.keyboard.press("+");
    expect(await width()).toBe(before * 2);
    await page.keyboard.press("0");
    expect(await width()).toBe(before);
    expect(browsing.complaints).toEqual([]);
  });

  test("it has a dark and a paper side", async () => {
    await page.goto(address);
    const background = () => page.evaluate<string>("getComputedStyle(document.body).backgroundColor");
    await page.emulateMedia({ media: "screen", colorScheme: "dark" });
    const dark = await background();
    await page.emulateMedia({ media: "screen", colorScheme: "light" });
    expect(await background()).not.toBe(dark);
    await page.emulateMedia({ media: "print", colorScheme: "dark" });
    expect(await background()).toBe("rgb(255, 255, 255)");
    expect(await page.evaluate("getComputedStyle(document.querySelector('.zoom')).display")).toBe("none");
    const paper = await page.pdf();
    expect(paper.subarray(0, 5).toString()).toBe("%PDF-");
    await page.emulateMedia({ media: "screen", colorScheme: "light" });
  });

  test("a wait of any length leaves room for the rest, and says how long it was", async () => {
    const bundle = makeBundle();
    create(bundle);
    await new Promise((resolve) => setTimeout(resolve, 500));
    start(bundle);
    untilStopped(bundle);
    const file = join(scratchDirectory(), "waited.html");
    caisson("--html", file, bundle.id);
    await page.goto(pathToFileURL(file).href);
    expect(await page.evaluate("document.querySelector('.axis em').innerText")).toMatch(
      /^⫽ (5|6|7|8|9)\d\d ms|^⫽ [1-9]\.\d+ s/,
    );
    const waits = await page.evaluate<number>(
      "document.querySelector('.axis em').getBoundingClientRect().width / document.querySelector('.axis').getBoundingClientRect().width",
    );
    expect(waits).toBeCloseTo(0.05, 2);
    expect(browsing.complaints).toEqual([]);
  });

  test("a failure is told first, and its step is open", async () => {
    const bundle = makeBundle((spec) => {
      spec.mounts.push({ destination: "/x", type: "nosuchfs", source: "none" });
    });
    expect(run(bundle).status).toBe(1);
    const file = join(scratchDirectory(), "failed.html");
    caisson("--html", file, bundle.id);
    await page.goto(pathToFileURL(file).href);
    expect(await page.evaluate("document.querySelector('.failure').innerText")).toContain(
      "no filesystem called nosuchfs",
    );
    expect(await page.evaluate("document.querySelector('.step.failed').open")).toBe(true);
    expect(await page.evaluate("document.querySelector('.lane[aria-label=\"taken back\"] a.bar') !== null")).toBe(true);
    expect(browsing.complaints).toEqual([]);
  });

  test("an empty trace is a page as well", async () => {
    const file = join(scratchDirectory(), "empty.html");
    writeFileSync(file, tracePage([], { title: "nothing" }));
    await page.goto(pathToFileURL(file).href);
    expect(browsing.complaints).toEqual([]);
  });
});
