/** Runs one command of the engine. @returns the exit status */
export async function runEngine(words: readonly string[]): Promise<number> {
  return words.length;
}
