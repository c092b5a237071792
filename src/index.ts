export { Container, type Running, type Start } from "./container/container.ts";
export { ContainerError, type ContainerErrorFields } from "./error.ts";
export { compile } from "./plan/compile.ts";
export type { Definition } from "./plan/definition.ts";
export { type Explanation, explain } from "./plan/explain.ts";
export type { Host } from "./plan/host.ts";
export type { Plan, Step } from "./plan/step.ts";
export { parse } from "./spec/parse.ts";
export type { Spec, State } from "./spec/spec.ts";
