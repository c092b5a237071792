import { Argument, type Command, type Option } from "commander";
import type { Engine } from "../../engine/engine.ts";
import { familiarReference, parseReference } from "../../image/reference.ts";
import { ImageStore } from "../../image/store.ts";
import { LESSONS } from "../../learn/lessons.ts";
import { CAPABILITIES } from "../../linux/capabilities.ts";
import { SIGNALS } from "../../linux/signals.ts";
import { print, printRaw } from "../print.ts";
import type { Define } from "./engine.ts";

/** What may stand at the cursor. */
interface Candidate {
  word: string;
  about?: string;
}

/** The one word of a shell's line that says: and the files that there are. */
const FILES = ":files";

/**
 * The scripts only ask us: what can stand at the cursor is told by `caisson __complete WORD...`, the last word being the
 * one that is begun: a line each, with what it means behind a tab.
 */
const SCRIPTS: { readonly [shell: string]: string } = {
  // bash divides words at : and =, too; we want them whole, and it wants what comes behind the last of these
  bash: `_caisson() {
	local line words word prefix
	read -ra words <<< "\${COMP_LINE:0:COMP_POINT}"
	[[ \${COMP_LINE:0:COMP_POINT} == *[[:space:]] ]] && words+=("")
	word=\${words[-1]}
	prefix=\${word%"\${word##*[:=]}"}
	COMPREPLY=()
	while IFS= read -r line; do
		if [ "$line" = ${FILES} ]; then
			compopt -o filenames 2> /dev/null
			while IFS= read -r line; do COMPREPLY+=("\${line#"$prefix"}"); done < <(compgen -f -- "$word")
		else
			line=\${line%%$'\\t'*}
			COMPREPLY+=("\${line#"$prefix"}")
		fi
	done < <("\${words[0]}" __complete "\${words[@]:1}" 2> /dev/null)
}
complete -F _caisson caisson
`,
  zsh: `#compdef caisson
_caisson() {
	local line files=0
	local -a found
	while IFS= read -r line; do
		if [[ $line == ${FILES} ]]; then
			files=1
		else
			found+=("\${\${line%%$'\\t'*}//:/\\\\:}\${\${(M)line%$'\\t'*}/$'\\t'/:}")
		fi
	done < <("\${words[1]}" __complete "\${(@)words[2,CURRENT]}" 2>/dev/null)
	(( \${#found} )) && _describe caisson found
	(( files )) && _files
	return 0
}
if [ "$funcstack[1]" = _caisson ]; then _caisson; else compdef _caisson caisson; fi
`,
  fish: `function __caisson
	set --local words (commandline --tokenize --cut-at-cursor --current-process) (commandline --current-token --cut-at-cursor)
	for line in ($words[1] __complete $words[2..] 2>/dev/null)
		if test "$line" = ${FILES}
			__fish_complete_path (commandline --current-token --cut-at-cursor)
		else
			echo $line
		end
	end
end
complete --command caisson --no-files --arguments '(__caisson)'
`,
};

export const defineCompletion: Define = (program) => {
  program
    .command("completion")
    .description("print the completions for a shell")
    .addArgument(new Argument("<shell>").choices(Object.keys(SCRIPTS)))
    .addHelpText(
      "after",
      '\nFor one shell: eval "$(caisson completion bash)". For all of yours:\n' +
        "  caisson completion bash > /etc/bash_completion.d/caisson\n" +
        "  caisson completion zsh > /usr/share/zsh/vendor-completions/_caisson\n" +
        "  caisson completion fish > /usr/share/fish/vendor_completions.d/caisson.fish",
    )
    .action((shell: string) => printRaw(SCRIPTS[shell] ?? ""));
};

/** Hidden: what the scripts ask. */
export const defineComplete: Define = (program, { engine }) => {
  program
    .command("__complete", { hidden: true })
    .argument("[words...]")
    .allowUnknownOption()
    .passThroughOptions()
    .helpOption(false)
    .action((words: string[]) => {
      const begun = words.at(-1) ?? "";
      for (const { word, about } of complete(program, words.slice(0, -1), begun, engine))
        if (word === FILES || word.startsWith(begun)) print(about === undefined ? word : `${word}\t${about}`);
    });
};

function complete(program: Command, before: readonly string[], begun: string, engine: () => Engine): Candidate[] {
  const { command, given, value } = walk(program, before);
  if (value !== undefined) return value.argChoices?.map((word) => ({ word })) ?? named(placeholder(value), engine);
  const ended = before.includes("--") || (passesOn(command) && given > 0);
  if (begun.startsWith("-") && !ended) return optionsOf(command);
  const subcommands = given > 0 ? [] : commandsOf(command);
  const argument = argumentAt(command, given);
  if (argument === undefined) return subcommands;
  return [...subcommands, ...(argument.argChoices?.map((word) => ({ word })) ?? named(argument.name(), engine))];
}

/** Which command the words have come to, how many arguments of it they hold, and the option that wants a value next. */
function walk(program: Command, words: readonly string[]) {
  let command = program;
  let given = 0;
  let value: Option | undefined;
  for (const word of words) {
    if (value !== undefined) {
      value = undefined;
      continue;
    }
    const isOption = word.startsWith("-") && word !== "-" && !(passesOn(command) && given > 0);
    const option = isOption ? command.options.find(({ long, short }) => word === long || word === short) : undefined;
    const next = isOption || given > 0 ? undefined : command.commands.find((each) => each.name() === word);
    if (next !== undefined) command = next;
    else if (option?.required === true) value = option;
    else if (!isOption) given++;
  }
  return { command, given, value };
}

/** Whether the words behind its first argument are another program's. */
function passesOn(command: Command): boolean {
  return command.registeredArguments.some((argument) => argument.name() === "command");
}

function argumentAt({ registeredArguments: all }: Command, index: number): Argument | undefined {
  const last = all.at(-1);
  return all[index] ?? (last?.variadic === true ? last : undefined);
}

function optionsOf(command: Command): Candidate[] {
  return command
    .createHelp()
    .visibleOptions(command)
    .map(({ long, short, description }) => ({ word: long ?? short ?? "", about: description }));
}

function commandsOf(command: Command): Candidate[] {
  return command
    .createHelp()
    .visibleCommands(command)
    .map((each) => ({ word: each.name(), about: each.description() }));
}

/** The word in an option's angle brackets, unless its own name says more. */
function placeholder({ flags, long }: Option): string {
  return long === "--network" ? "network" : (/<([^>]+)>/.exec(flags)?.[1] ?? "");
}

/** What is there under the name of an argument or of a value; nothing for what only its user can know. */
function named(what: string, engine: () => Engine): Candidate[] {
  const containers = () => {
    const { containers: all } = engine();
    return all.list().map(({ name, image }) => ({ word: name, about: image }));
  };
  switch (what) {
    case "container":
    case "before":
    case "after":
      return containers();
    case "image":
      return [
        ...ImageStore.open(engine().places.data)
          .list()
          .flatMap(({ name }) => (name === undefined ? [] : [{ word: familiarReference(parseReference(name)) }])),
        { word: FILES },
      ];
    case "capability":
      return ["ALL", ...CAPABILITIES].map((word) => ({ word: word.replace(/^CAP_/, "") }));
    case "signal":
      return Object.keys(SIGNALS).map((name) => ({ word: name.replace(/^SIG/, "") }));
    case "network":
      return ["bridge", "none", "host", ...containers().map(({ word }) => `container:${word}`)].map((word) => ({
        word,
      }));
    case "lesson":
      return LESSONS.map(({ name, title }) => ({ word: name, about: title }));
    case "command":
    case "directory":
    case "file":
    case "[source:]destination[:options]":
      return [{ word: FILES }];
    default:
      return [];
  }
}
