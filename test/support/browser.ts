import { spawnSync } from "node:child_process";
import { chromium, type Page } from "playwright-core";

/** Debian's own browser, where it is installed: nothing is fetched. */
export const CHROMIUM = spawnSync("sh", ["-c", "command -v chromium"], { encoding: "utf8" }).stdout.trim();

/** A page in a headless Chromium. */
export interface Browsing {
  page: Page;
  /** What the page complained about: exceptions, errors on the console, refused content. */
  complaints: string[];
  /** Addresses the page asked for. */
  requests: string[];
  close(): Promise<void>;
}

export async function browse(viewport = { width: 1240, height: 900 }): Promise<Browsing> {
  // we are root, and the page is our own
  const browser = await chromium.launch({ executablePath: CHROMIUM, chromiumSandbox: false });
  const page = await browser.newPage({ viewport });
  const [complaints, requests]: [string[], string[]] = [[], []];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("request", (request) => requests.push(request.url()));
  return { page, complaints, requests, close: () => browser.close() };
}
