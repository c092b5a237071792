import { existsSync } from "node:fs";
import {
  execsIn,
  FAILURES,
  type Failure,
  failuresIn,
  type Recording,
  readExec,
  readRecording,
} from "../container/recording.ts";
import { Store } from "../container/store.ts";
import { ContainerError } from "../error.ts";
import { Containers } from "./containers.ts";
import type { Places } from "./engine.ts";

/** One trace that is kept, by the word that shows it. */
export interface KeptTrace {
  word: string;
  kind: "create" | "exec" | "failed";
  /** RFC 3339, where it is known without the trace. */
  at: string | undefined;
  /** What became of it, for people. */
  says: string;
}

/**
 * Finds a trace: of a container by name, id or the beginning of an id (the engine's), by id (caisson-runtime's), or of
 * one that failed to start; with ":exec" behind it of the process that was added to it last, with ":exec-N" of the Nth.
 * @throws ContainerError ENOENT
 */
export function findRecording(places: Places, word: string): Recording {
  const [, name = word, exec, number] = /^(.*?)(:exec(?:-([1-9][0-9]*))?)?$/s.exec(word) ?? [];
  const directory = directoryOf(places, name) ?? failureOf(places, name);
  if (directory === undefined)
    throw new ContainerError({
      message: `there is no container ${name}, and none of that name has failed to start lately`,
      code: "ENOENT",
    });
  const recording =
    exec === undefined ? readRecording(directory) : readExec(directory, Number(number ?? execsIn(directory).at(-1)));
  if (recording !== undefined) return recording;
  throw new ContainerError({
    message:
      exec === undefined
        ? `nothing is known of how ${name} was made`
        : `no such process was added to ${name}, or it is forgotten: only the last few are kept`,
    code: "ENOENT",
  });
}

/**
 * Finds a failure that is kept: of what a word names (as for findRecording), or the last one of all.
 * @throws ContainerError ENOENT where nothing failed
 */
export function findFailure(places: Places, word?: string): { recording: Recording; failure: Failure } {
  const recording = word === undefined ? lastFailure(places) : failedOf(places, word);
  const failure = recording?.failure;
  if (recording !== undefined && failure !== undefined) return { recording, failure };
  throw new ContainerError({
    message: word === undefined ? "nothing has failed lately" : `nothing of ${word} has failed lately`,
    code: "ENOENT",
    hint: "caisson trace lists what is kept",
  });
}

/** A container that lives can have failed before, under the same id. */
function failedOf(places: Places, word: string): Recording | undefined {
  const found = findRecording(places, word);
  if (found.failure !== undefined || found.kind === "exec") return found;
  const directory = failureOf(places, word);
  return directory === undefined ? undefined : readRecording(directory);
}

function lastFailure(places: Places): Recording | undefined {
  const [created] = failuresOf(places);
  const creation = created === undefined ? undefined : readRecording(created.directory);
  return listRecordings(places)
    .filter(({ kind }) => kind === "exec")
    .map(({ word }) => findRecording(places, word))
    .concat(creation ?? [])
    .filter(({ failure }) => failure !== undefined)
    .sort((one, other) => (other.failure?.at ?? "").localeCompare(one.failure?.at ?? ""))[0];
}

/** Every trace there is. */
export function listRecordings({ data, root }: Places): KeptTrace[] {
  const containers = new Containers(data);
  const engine = containers.list().map(({ id, name, created }) => ({ id, word: name, at: created }));
  const known = new Set(engine.map(({ id }) => id));
  const runtime = Store.list(root)
    .filter((id) => !known.has(id))
    .map((id) => ({ id, word: id, at: Store.isDamaged(root, id) ? undefined : Store.read(root, id)?.createdAt }));
  return [
    ...[...engine, ...runtime].flatMap(({ id, word, at }): KeptTrace[] => {
      const directory = [`${root}/${id}`, containers.directory(id)].find(isRecorded);
      if (directory === undefined) return [];
      const execs = execsIn(directory).map(
        (number): KeptTrace => ({ word: `${word}:exec-${number}`, kind: "exec", at: undefined, says: "" }),
      );
      return [{ word, kind: "create", at, says: "" }, ...execs];
    }),
    ...failuresOf({ data, root }).map(
      ({ failure }): KeptTrace => ({ word: wordOf(failure), kind: "failed", at: failure.at, says: failure.message }),
    ),
  ];
}

/** While a container runs its directory is beneath the state root; what the engine's leave behind is with the others. */
function directoryOf({ data, root }: Places, name: string): string | undefined {
  const containers = new Containers(data);
  try {
    const { id } = containers.find(name);
    return [`${root}/${id}`, containers.directory(id)].find(isRecorded);
  } catch (error) {
    if (!(error instanceof ContainerError && error.code === "ENOENT")) throw error;
  }
  return Store.list(root).includes(name) && isRecorded(`${root}/${name}`) ? `${root}/${name}` : undefined;
}

function failureOf(places: Places, name: string): string | undefined {
  const kept = failuresOf(places);
  const fits = (one: Failure) =>
    one.name === name || one.id === name || (isBeginning(name) && one.id.startsWith(name) && one.name !== undefined);
  return kept.find(({ failure }) => fits(failure))?.directory;
}

function failuresOf({ data, root }: Places): { directory: string; failure: Failure }[] {
  return [...failuresIn(`${data}/failed`), ...failuresIn(`${root}/${FAILURES}`)].sort((one, other) =>
    other.failure.at.localeCompare(one.failure.at),
  );
}

/** Of an id of the engine's. */
function isBeginning(word: string): boolean {
  return /^[0-9a-f]{4,64}$/.test(word);
}

function wordOf({ name, id }: Failure): string {
  return name ?? id;
}

function isRecorded(directory: string): boolean {
  return existsSync(`${directory}/definition.json`);
}
