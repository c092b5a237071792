/** What a ContainerError knows; every field is data, the words are put together where they are printed. */
export interface ContainerErrorFields {
  message: string;
  /** errno's name, such as "EPERM", or a word of ours in the same style, such as "ERR_SPEC". */
  code?: string | undefined;
  /** errno, positive. */
  errno?: number | undefined;
  syscall?: string | undefined;
  path?: string | undefined;
  dest?: string | undefined;
  /** Name of the plan's step that failed. */
  step?: string | undefined;
  /** Its place in the plan, from 0. */
  index?: number | undefined;
  /** JSON pointer into the definition, such as "/spec/mounts/0". */
  from?: string | undefined;
  /** A condition and a remedy. */
  hint?: string | undefined;
  /** What could not be taken back after it, in words: it is still there. */
  left?: readonly string[] | undefined;
  cause?: unknown;
}

/** The one error class of Caisson. It starts with the fields of Node's own system errors. */
export class ContainerError extends Error {
  readonly code: string | undefined;
  readonly errno: number | undefined;
  readonly syscall: string | undefined;
  readonly path: string | undefined;
  readonly dest: string | undefined;
  readonly step: string | undefined;
  readonly index: number | undefined;
  readonly from: string | undefined;
  readonly hint: string | undefined;
  readonly left: readonly string[] | undefined;

  constructor(fields: ContainerErrorFields) {
    super(fields.message, fields.cause === undefined ? undefined : { cause: fields.cause });
    this.name = "ContainerError";
    this.code = fields.code;
    this.errno = fields.errno;
    this.syscall = fields.syscall;
    this.path = fields.path;
    this.dest = fields.dest;
    this.step = fields.step;
    this.index = fields.index;
    this.from = fields.from;
    this.hint = fields.hint;
    this.left = fields.left;
  }
}

/** Tries all of it, whatever fails. @returns the errors, in their order */
export function tryAll(works: readonly (() => void)[]): unknown[] {
  return works.flatMap((work) => {
    try {
      work();
      return [];
    } catch (error) {
      return [error];
    }
  });
}

/** An error that also says what failed after it; itself when nothing did. */
export function withLeft(error: unknown, failures: readonly unknown[]): unknown {
  if (failures.length === 0) return error;
  const known = error instanceof ContainerError ? error : undefined;
  return new ContainerError({
    ...known,
    message: inWords(error),
    left: [...(known?.left ?? []), ...failures.map(inWords)],
    cause: known?.cause ?? error,
  });
}

function inWords(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
