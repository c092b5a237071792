import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable, Writable } from "node:stream";

/** Debian's own browser, where it is installed. */
export const chromium = spawnSync("sh", ["-c", "command -v chromium"], { encoding: "utf8" }).stdout.trim();

interface Message {
  id?: number;
  method?: string;
  params?: { [name: string]: unknown };
  result?: { [name: string]: unknown };
  error?: { message: string };
}

/** One page in a headless Chromium, through the DevTools protocol on a pipe: messages end with NUL. */
export class Browser {
  /** What the page complained about: exceptions, errors on the console, refused content. */
  readonly complaints: string[] = [];
  /** Addresses the page asked for. */
  readonly requests: string[] = [];
  readonly #child: ChildProcess;
  readonly #profile: string;
  readonly #input: Writable;
  readonly #waiting = new Map<number, (message: Message) => void>();
  #session = "";
  #serial = 0;
  #loaded: (() => void) | undefined;

  private constructor(child: ChildProcess, profile: string) {
    this.#child = child;
    this.#profile = profile;
    // descriptors 3 and 4: what it reads, and what it writes
    this.#input = child.stdio[3] as Writable; // "pipe" makes these
    let rest = "";
    (child.stdio[4] as Readable).setEncoding("utf8").on("data", (text: string) => {
      const messages = (rest + text).split("\0");
      rest = messages.pop() ?? "";
      for (const message of messages) this.#hear(JSON.parse(message));
    });
  }

  static async start(size = { width: 1240, height: 900 }): Promise<Browser> {
    const profile = mkdtempSync(join(tmpdir(), "caisson-browser-"));
    const words = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"];
    const child = spawn(
      chromium,
      [...words, "--remote-debugging-pipe", `--user-data-dir=${profile}`, "--no-first-run", "about:blank"],
      // a group of its own, so that all of its helpers can be ended
      {
        stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"],
        detached: true,
        env: { PATH: "/usr/bin:/bin", HOME: profile },
      },
    );
    const browser = new Browser(child, profile);
    const { targetId } = await browser.#send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await browser.#send("Target.attachToTarget", { targetId, flatten: true });
    browser.#session = String(sessionId);
    for (const domain of ["Page", "Runtime", "Log", "Network"]) await browser.#send(`${domain}.enable`);
    await browser.resize(size);
    return browser;
  }

  resize(size: { width: number; height: number }): Promise<unknown> {
    return this.#send("Emulation.setDeviceMetricsOverride", { ...size, deviceScaleFactor: 1, mobile: false });
  }

  async open(url: string): Promise<void> {
    const loaded = new Promise<void>((resolve) => {
      this.#loaded = resolve;
    });
    await this.#send("Page.navigate", { url });
    await loaded;
  }

  /** The value of an expression in the page. */
  async value<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.#send("Runtime.evaluate", { expression, returnByValue: true });
    if (exceptionDetails !== undefined) throw new Error(`${expression}: ${JSON.stringify(exceptionDetails)}`);
    return (result as { value: T }).value; // the caller knows what it asks for
  }

  async press(key: string): Promise<void> {
    const text = key === "Enter" ? "\r" : key.length === 1 ? key : undefined;
    const codes: { [key: string]: number } = {
      Enter: 13,
      ArrowLeft: 37,
      ArrowUp: 38,
      ArrowRight: 39,
      ArrowDown: 40,
      Tab: 9,
    };
    const event = { key, code: key, windowsVirtualKeyCode: codes[key] ?? key.charCodeAt(0), text };
    await this.#send("Input.dispatchKeyEvent", { type: "keyDown", ...event });
    await this.#send("Input.dispatchKeyEvent", { type: "keyUp", ...event });
  }

  async point(x: number, y: number, click = false): Promise<void> {
    await this.#send("Input.dispatchMouseEvent", { type: "mouseMoved", x, y });
    if (!click) return;
    for (const type of ["mousePressed", "mouseReleased"])
      await this.#send("Input.dispatchMouseEvent", { type, x, y, button: "left", clickCount: 1 });
  }

  /** As on paper, or in the dark. */
  async emulate(media: "screen" | "print", scheme: "light" | "dark" = "light"): Promise<void> {
    await this.#send("Emulation.setEmulatedMedia", {
      media,
      features: [{ name: "prefers-color-scheme", value: scheme }],
    });
  }

  /** What one sees, as PNG. */
  async screenshot(): Promise<Buffer> {
    const { data } = await this.#send("Page.captureScreenshot", { format: "png" });
    return Buffer.from(String(data), "base64");
  }

  /** The page on paper, as PDF. */
  async print(): Promise<Buffer> {
    const { data } = await this.#send("Page.printToPDF", { printBackground: false });
    return Buffer.from(String(data), "base64");
  }

  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.#child.once("exit", resolve));
    await this.#send("Browser.close");
    await ended;
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  }

  #send(method: string, params: object = {}): Promise<{ [name: string]: unknown }> {
    const id = ++this.#serial;
    const session = this.#session === "" || method.startsWith("Browser.") ? {} : { sessionId: this.#session };
    this.#input.write(`${JSON.stringify({ id, method, params, ...session })}\0`);
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, ({ result, error }) =>
        error === undefined ? resolve(result ?? {}) : reject(new Error(`${method}: ${error.message}`)),
      );
    });
  }

  #hear(message: Message): void {
    const { id, method, params } = message;
    if (id !== undefined) {
      this.#waiting.get(id)?.(message);
      this.#waiting.delete(id);
    } else if (method === "Page.loadEventFired") this.#loaded?.();
    else if (method === "Network.requestWillBeSent")
      this.requests.push(String((params?.request as { url?: string } | undefined)?.url));
    else if (method === "Runtime.exceptionThrown" || method === "Log.entryAdded")
      this.complaints.push(JSON.stringify(params));
    else if (method === "Runtime.consoleAPICalled" && params?.type === "error")
      this.complaints.push(JSON.stringify(params.args));
  }
}
