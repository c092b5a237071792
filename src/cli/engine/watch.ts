import type { Recording } from "../../container/recording.ts";
import type { Places } from "../../engine/engine.ts";
import type { Part } from "../../trace/line.ts";
import { sayError } from "../print.ts";

/** For a command with --trace: it looks at what is recorded while that is surely there, and tells it afterwards. */
export interface Watch {
  /** @param word as for caisson trace */
  look: (word: string) => void;
  /** Prints the table, where it was asked for. */
  show: () => void;
  /** Sends spans, where the caller is being traced. */
  send: () => Promise<void>;
}

/**
 * @param part what of a recording the command has done
 * @returns undefined where nobody wants to know: the code that tells is not even loaded then
 */
export async function watch(places: Places, trace: boolean | undefined, part?: Part): Promise<Watch | undefined> {
  const callers = process.env.TRACEPARENT !== undefined;
  if (trace !== true && !callers) return;
  const { findRecording } = await import("../../engine/recordings.ts");
  const { sayTrace } = await import("./trace.ts");
  const recordings: Recording[] = [];
  return {
    look: (word) => {
      try {
        recordings.push(findRecording(places, word));
      } catch (error) {
        // that nothing can be told of what was done is no reason to fail it
        if (trace === true) sayError(error);
      }
    },
    show: () => {
      if (trace === true) for (const recording of recordings) sayTrace(recording, part);
    },
    send: async () => {
      if (!callers) return;
      const { joinCallersTrace } = await import("../spans.ts");
      for (const recording of recordings) await joinCallersTrace(() => recording, part);
    },
  };
}
