import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Line } from "../../src/trace/line.ts";
import { tracePage } from "../../src/trace/page.ts";
import { Browser, chromium } from "../support/browser.ts";
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

describe.skipIf(chromium === "")("in Chromium (Debian's package chromium)", () => {
  let browser: Browser;
  let lines: Line[] = [];
  let address = "";

  beforeAll(async () => {
    const bundle = makeBundle((spec) => {
      spec.hostname = "<img src=x onerror=alert(1)>";
    });
    expect(run(bundle, {}, "--keep").status).toBe(0);
    const page = join(scratchDirectory(), "page.html");
    caisson("--html", page, bundle.id);
    lines = linesOf(bundle.id);
    address = pathToFileURL(page).href;
    browser = await Browser.start();
  });
  afterAll(async () => {
    await browser.close();
    cleanUp();
    cleanUpFile();
  });

  test("it opens from a file without a complaint, and asks for nothing else", async () => {
    await browser.open(address);
    expect(browser.complaints).toEqual([]);
    expect(browser.requests.filter((url) => url !== "about:blank")).toEqual([address]);
    expect(await browser.value("document.querySelector('h1').innerText")).toContain("test-");
    expect(await browser.value("document.querySelectorAll('.step').length")).toBe(lines.length);
    expect(await browser.value("document.images.length")).toBe(0);
    expect(await browser.value("document.body.innerText")).toContain("names the machine <img src=x onerror=alert(1)>");
    expect(await browser.value("document.documentElement.scrollWidth <= innerWidth")).toBe(true);
  });

  test("every step with calls is a bar in its side's lane, in its place and to scale", async () => {
    await browser.open(address);
    for (const zoom of [0, 5]) {
      for (let i = 0; i < zoom; i++) await browser.press("+");
      const bars = await browser.value<Bar[]>(BARS);
      const timed = lines.flatMap((line, at) => (line.startedNs === undefined ? [] : [{ ...line, at }]));
      expect(bars.map(({ href, lane }) => [href, lane])).toEqual(
        expect.arrayContaining(timed.map(({ at, side }) => [`#s${at}`, side])),
      );
      expect(bars).toHaveLength(timed.length);
      const axis = await browser.value<{ left: number; width: number }>(
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
    await browser.open(address);
    const at = lines.findIndex(({ step }) => step === "startInit");
    const { x, y } = await browser.value<{ x: number; y: number }>(
      `(({ left, top, width, height }) => ({ x: left + width / 2, y: top + height / 2 }))(document.querySelector('a[href="#s${at}"]').getBoundingClientRect())`,
    );
    await browser.point(x, y);
    expect(await browser.value("document.getElementById('tip').innerText")).toContain("startInit: starts init");
    await browser.point(x, y, true);
    expect(await browser.value(`document.getElementById("s${at}").open`)).toBe(true);
    const text = await browser.value<string>(`document.getElementById("s${at}").innerText`);
    expect(text).toContain("A small static program with no policy does the rest from inside.");
    for (const { name } of lines[at]?.calls ?? []) expect(text).toContain(`${name}(`);
    expect(
      await browser.value(
        `(({ top, bottom }) => top >= 0 && bottom <= innerHeight)(document.querySelector("#s${at} summary").getBoundingClientRect())`,
      ),
    ).toBe(true);
  });

  test("all of it can be reached by keys", async () => {
    await browser.open(address);
    const focused = () =>
      browser.value<string>(
        "document.activeElement.closest('.step')?.id ?? document.activeElement.getAttribute('href')",
      );
    for (let i = 0; i < 3; i++) await browser.press("ArrowDown");
    expect(await focused()).toBe("s2");
    await browser.press("ArrowUp");
    expect(await focused()).toBe("s1");
    await browser.press("Enter");
    expect(await browser.value("document.getElementById('s1').open")).toBe(true);
    await browser.press("ArrowRight");
    await browser.press("ArrowRight");
    expect(await focused()).toBe("#s1");
    expect(await browser.value("document.getElementById('tip').hidden")).toBe(false);
    await browser.press("Enter");
    expect(await focused()).toBe("s1");
    const width = () => browser.value<number>("document.querySelector('.canvas').clientWidth");
    const before = await width();
    await browser.press("+");
    expect(await width()).toBe(before * 2);
    await browser.press("0");
    expect(await width()).toBe(before);
    expect(browser.complaints).toEqual([]);
  });

  test("it has a dark and a paper side", async () => {
    await browser.open(address);
    const background = () => browser.value<string>("getComputedStyle(document.body).backgroundColor");
    await browser.emulate("screen", "dark");
    const dark = await background();
    await browser.emulate("screen", "light");
    expect(await background()).not.toBe(dark);
    await browser.emulate("print", "dark");
    expect(await background()).toBe("rgb(255, 255, 255)");
    expect(await browser.value("getComputedStyle(document.querySelector('.zoom')).display")).toBe("none");
    const paper = await browser.print();
    expect(paper.subarray(0, 5).toString()).toBe("%PDF-");
    await browser.emulate("screen", "light");
  });

  test("a wait of any length leaves room for the rest, and says how long it was", async () => {
    const bundle = makeBundle();
    create(bundle);
    await new Promise((resolve) => setTimeout(resolve, 500));
    start(bundle);
    untilStopped(bundle);
    const page = join(scratchDirectory(), "waited.html");
    caisson("--html", page, bundle.id);
    await browser.open(pathToFileURL(page).href);
    expect(await browser.value("document.querySelector('.axis em').innerText")).toMatch(
      /^⫽ (5|6|7|8|9)\d\d ms|^⫽ [1-9]\.\d+ s/,
    );
    const waits = await browser.value<number>(
      "document.querySelector('.axis em').getBoundingClientRect().width / document.querySelector('.axis').getBoundingClientRect().width",
    );
    expect(waits).toBeCloseTo(0.05, 2);
    expect(browser.complaints).toEqual([]);
  });

  test("a failure is told first, and its step is open", async () => {
    const bundle = makeBundle((spec) => {
      spec.mounts.push({ destination: "/x", type: "nosuchfs", source: "none" });
    });
    expect(run(bundle).status).toBe(1);
    const page = join(scratchDirectory(), "failed.html");
    caisson("--html", page, bundle.id);
    await browser.open(pathToFileURL(page).href);
    expect(await browser.value("document.querySelector('.failure').innerText")).toContain(
      "no filesystem called nosuchfs",
    );
    expect(await browser.value("document.querySelector('.step.failed').open")).toBe(true);
    expect(await browser.value("document.querySelector('.lane[aria-label=\"taken back\"] a.bar') !== null")).toBe(true);
    expect(browser.complaints).toEqual([]);
  });

  test("an empty trace is a page as well", async () => {
    const page = join(scratchDirectory(), "empty.html");
    writeFileSync(page, tracePage([], { title: "nothing" }));
    await browser.open(pathToFileURL(page).href);
    expect(browser.complaints).toEqual([]);
  });
});
