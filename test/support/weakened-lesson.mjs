// Gives a lesson whose containers are weakened: what the lesson is about is taken out of their specs or plans, so that
// the lesson must notice. The JavaScript build's own code; node weakened-lesson.mjs DATA ROOT LESSON WEAKNESS
import { give } from "../../dist/js/learn/classroom.js";
import { LESSONS } from "../../dist/js/learn/lessons.js";
import { keep, Session } from "../../dist/js/learn/session.js";
import { WEAKNESSES } from "./weaknesses.mjs";

const words = process.argv.slice(2);
if (words.includes("--tidy")) {
  keep(words.at(-1), { data: words[1], root: words[3] });
} else {
  const [data, root, name, weakness] = words;
  const lesson = LESSONS.find((each) => each.name === name);
  const session = Session.open({ data, root });
  const learner = { patient: false, say: () => undefined, show: () => undefined, hear: () => "=" };
  try {
    console.log(JSON.stringify(give(lesson, session, learner, WEAKNESSES[weakness])));
  } finally {
    session.close();
  }
}
