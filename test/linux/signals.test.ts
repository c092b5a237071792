import { constants } from "node:os";
import { expect, test } from "vitest";
import { ContainerError } from "../../src/error.ts";
import { parseSignal, SIGNALS, signalName } from "../../src/linux/signals.ts";

test("the numbers are the system's", () => {
  expect({ ...SIGNALS, SIGIOT: 6, SIGPOLL: 29, SIGUNUSED: 31 }).toMatchObject(constants.signals);
});

test.each([
  ["TERM", 15],
  ["SIGTERM", 15],
  ["sigterm", 15],
  ["kill", 9],
  ["15", 15],
  ["0", 0],
  ["64", 64],
  ["SIGIOT", 6],
  ["CLD", 17],
  ["RTMIN", 34],
  ["RTMIN+3", 37],
  ["SIGRTMAX-1", 63],
  ["rtmax", 64],
])("%s is %i", (text, number) => {
  expect(parseSignal(text)).toBe(number);
});

test.each([
  "",
  "SIG",
  "SIGSIGTERM",
  "65",
  "-1",
  "1.5",
  "0x9",
  "9 ",
  "RTMIN+31",
  "RTMIN-1",
  "RTMAX+1",
  "FLY",
  "toString",
  "__proto__",
])("%j is none", (text) => {
  expect(() => parseSignal(text)).toThrow(ContainerError);
});

test("every number has a name that leads back to it", () => {
  for (let number = 0; number <= 64; number++) expect(parseSignal(signalName(number))).toBe(number);
  expect(signalName(15)).toBe("SIGTERM");
  expect(signalName(37)).toBe("SIGRTMIN+3");
});
