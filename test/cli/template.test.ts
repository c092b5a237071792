import { expect, test } from "vitest";
import { parseTemplate } from "../../src/cli/template.ts";

const VALUE = {
  Name: "/web",
  State: { Pid: 42, Running: true, Error: "" },
  List: ["a", "b"],
  None: [],
  Nothing: null,
  Ports: { "80/tcp": [{ HostPort: "8080" }], "53/udp": [{ HostPort: "5300" }] },
};

test.each([
  ["{{.Name}}", "/web"],
  ["{{ .State.Pid }} and {{.State.Running}}", "42 and true"],
  ["{{json .State}}", '{"Pid":42,"Running":true,"Error":""}'],
  ["{{.State | json}}", '{"Pid":42,"Running":true,"Error":""}'],
  ["{{.List}} {{.None}} {{.Nothing}}", "[a b] [] <nil>"],
  ["{{.State}}", "map[Error: Pid:42 Running:true]"],
  ["{{.Name}}\\t{{len .List}}\\n", "/web\t2\n"],
  ['{{join .List ", "}}{{upper .Name}}', "a, b/WEB"],
  ["{{range .List}}<{{.}}>{{end}}", "<a><b>"],
  ["{{range .None}}x{{else}}none{{end}}", "none"],
  ["{{range $port, $at := .Ports}}{{$port}}={{(index $at 0).HostPort}} {{end}}", "53/udp=5300 80/tcp=8080 "],
  ['{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"],
  ["{{if .State.Error}}bad{{else if .State.Running}}up{{else}}down{{end}}", "up"],
  ['{{if and .State.Running (eq .Name "/web")}}yes{{end}}', "yes"],
  ["{{with .State}}{{.Pid}}{{$.Name}}{{end}}", "42/web"],
  ["a {{- /* nothing */ -}} b", "ab"],
  ['{{"a }} b"}}', "a }} b"],
  ["{{not .State.Running}} {{or .State.Error .Name}}", "false /web"],
])("%s", (template, text) => {
  expect(parseTemplate(template)(VALUE)).toBe(text);
});

test.each([
  ["{{.Nope}}", /no field Nope/],
  ["{{.State.Nope}}", /no field Nope in .State.Nope/],
  ["{{.List.length}}x{{.constructor}}", /no field constructor/],
  ["{{", /not closed/],
  ["{{if .Name}}", /end is missing/],
  ["{{end}}", /belongs to nothing/],
  ["{{nope .Name}}", /nope is not understood|no function/],
  ["{{.Name", /not closed/],
  ["{{}}", /empty/],
  ["{{$x}}", /no variable/],
  ["{{(.Name}}", /\) is missing/],
])("%s is refused", (template, why) => {
  expect(() => parseTemplate(template)(VALUE)).toThrow(why);
});
