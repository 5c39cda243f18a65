import { Call } from "./call.js";
import { Lanes, Senses } from "./senses.js";
import { FAULTS, STATES, line } from "./story.js";

const STORY = "Please tell me a story.";
const GONE = 700; // ms without a picture: the face is away
const STEADY = 1500; // ms of pictures in a row: it is back
const PATIENCE = 60_000; // ms

const $ = (id) => document.getElementById(id);
const senses = new Senses($("video"));
const lanes = new Lanes($("lanes"), senses);
const faultButtons = [...document.querySelectorAll("[data-fault]")];
const controls = [...$("write").elements, ...$("suggestions").children, ...faultButtons];

let call = null;
let feed = null;
let began = 0; // Unix ms of the call's beginning
let speaking = false;
let avatarState = "idle";
let pictureThere = false;
let outcome = null; // the fault that is being watched
let broke = false; // out of credits
const results = {}; // by fault: what the browser saw, in seconds

const seconds = (value) => `${value.toFixed(1)} s`;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(condition, patience) {
  const end = performance.now() + patience;
  while (!condition()) {
    if (performance.now() > end) return false;
    await pause(50);
  }
  return true;
}

// -- the call ------------------------------------------------------------------------------------

async function start() {
  $("start").disabled = true;
  $("start").textContent = "Starting …";
  try {
    await senses.wake();
    const answer = await fetch("api/call", { method: "POST" });
    if (!answer.ok) throw new Error(await answer.text());
    const ticket = await answer.json();
    reset();
    follow(ticket.room);
    call = new Call($("video"), $("audio"));
    call.addEventListener("picture", ({ detail }) => { pictureThere = detail.there; });
    call.addEventListener("sound", ({ detail }) => senses.listenTo(detail.track));
    call.addEventListener("words", ({ detail }) => caption(detail));
    call.addEventListener("link", ({ detail }) => showState(detail.state === "cut" ? "cut" : avatarState));
    call.addEventListener("over", over);
    await call.join(ticket);
    $("welcome").hidden = true;
    for (const control of controls) control.disabled = false;
    $("text").focus({ preventScroll: true });
  } catch (error) {
    welcome(`That did not work: ${error.message}`);
  }
}

function reset() {
  began = Date.now();
  broke = false;
  outcome = null;
  pictureThere = false;
  for (const id of ["timeline", "talk"]) $(id).replaceChildren();
  $("outcome").hidden = true;
  $("caption").hidden = true;
  showCredits();
}

function over() {
  feed?.close();
  call = null;
  for (const control of controls) control.disabled = true;
  $("microphone").setAttribute("aria-pressed", "false");
  showState("closed");
  welcome("The call is over. Another tab may have begun one, or the demo was stopped.");
}

function welcome(text) {
  $("welcome").hidden = false;
  $("welcome-text").textContent = text;
  $("start").disabled = false;
  $("start").textContent = "Start a call";
}

// -- what is told --------------------------------------------------------------------------------

function follow(room) {
  feed?.close();
  feed = new EventSource(`api/events?room=${encodeURIComponent(room)}`);
  const source = feed;
  feed.addEventListener("over", () => source.close());
  feed.onmessage = ({ data }) => take(JSON.parse(data));
}

function take(news) {
  const entry = line(news);
  if (entry) addToTimeline(news.at * 1000, entry);
  switch (news.event) {
    case "agent":
      speaking = news.state === "speaking";
      if (news.speech_latency !== null) $("latency").textContent = seconds(news.speech_latency);
      break;
    case "state":
      avatarState = news.state;
      showState(news.state);
      break;
    case "stage":
      if (news.stage === "first_frame") $("first-frame").textContent = seconds(news.timings.first_frame);
      break;
    case "bill":
      $("billed").textContent = `${Math.round(news.seconds)} s`;
      $("cost").textContent = `$${(news.credits / 100).toFixed(2)}`;
      $("sessions").textContent = news.running > 1 ? `${news.sessions} (${news.running} now)` : `${news.sessions}`;
      break;
    case "fault":
      if (outcome?.name === news.name && news.phase === "over") outcome.over = true;
      break;
    case "gave_up":
      if (outcome?.name === "credits") showCredits((broke = true));
      break;
  }
}

function addToTimeline(at, { text, tone }) {
  const item = document.createElement("li");
  const time = document.createElement("time");
  const words = document.createElement("span");
  time.textContent = seconds(Math.max(0, at - began) / 1000);
  words.textContent = text;
  if (tone) words.className = tone;
  item.append(time, words);
  $("timeline").prepend(item); // the newest first
}

function showState(state) {
  $("state").dataset.state = state;
  $("state").textContent = state === "cut" ? "connection is cut" : STATES[state] ?? "not started";
}

// -- talking -------------------------------------------------------------------------------------

let captionTimer = 0;

function caption({ id, text, final }) {
  if (!text.trim()) return;
  let item = document.querySelector(`#talk [data-id="${CSS.escape(id)}"]`);
  if (!item) {
    item = addTalk("");
    item.dataset.id = id;
  }
  item.textContent = text.trim();
  $("talk").scrollTop = $("talk").scrollHeight;
  $("caption").textContent = lastWords(text.trim());
  $("caption").hidden = false;
  clearTimeout(captionTimer);
  if (final) captionTimer = setTimeout(() => { $("caption").hidden = true; }, 2500);
}

/** The sentence that is being said, and of a long one its end. */
function lastWords(text) {
  const sentence = text.match(/[^.!?]*[.!?]*$/)[0].trim() || text.match(/[^.!?]*[.!?]+\s*$/)[0].trim();
  return sentence.length > 90 ? `… ${sentence.slice(sentence.indexOf(" ", sentence.length - 80) + 1)}` : sentence;
}

function addTalk(text, who = "agent") {
  const item = document.createElement("li");
  item.className = who;
  item.textContent = text;
  $("talk").append(item);
  $("talk").scrollTop = $("talk").scrollHeight;
  return item;
}

async function say(text) {
  addTalk(text, "you");
  await call.say(text);
}

async function toggleMicrophone() {
  const on = $("microphone").getAttribute("aria-pressed") !== "true";
  try {
    await call.setMicrophone(on);
    $("microphone").setAttribute("aria-pressed", String(on));
    hint(on ? "Talk over the agent: it stops at once. It cannot tell words offline." : "");
  } catch {
    hint("The browser gives no microphone here. You can write instead.");
  }
}

const hint = (text) => { $("hint").textContent = text; };

// -- breaking ------------------------------------------------------------------------------------

async function breakIt(button) {
  const name = button.dataset.fault === "credits" && broke ? "top-up" : button.dataset.fault;
  for (const one of faultButtons) one.disabled = true;
  button.setAttribute("aria-busy", "true");
  try {
    if (name !== "top-up") await beginStory();
    await strike(name);
  } catch (error) {
    showOutcome(`That did not work: ${error.message}`);
  }
  button.setAttribute("aria-busy", "false");
  for (const one of faultButtons) one.disabled = !call || (broke && one.dataset.fault !== "credits");
}

/** So that there is a voice to carry on. */
async function beginStory() {
  if (!speaking) {
    await say(STORY);
    await until(() => speaking && performance.now() - senses.lastLoud < 300, 15_000);
    await pause(1500); // into the first sentence
  }
}

async function strike(name) {
  const began = performance.now();
  outcome = { name, over: false };
  lanes.mark(FAULTS[name]);
  showOutcome(`${capital(FAULTS[name])}. Listen …`);
  // A face that went and came back before the fault says nothing about it.
  const request = fetch(`api/break/${name}`, { method: "POST" });
  const answer = await request;
  if (!answer.ok) throw new Error(await answer.text());
  if (name === "top-up") call.showFace().catch((error) => showOutcome(`No face: ${error.message}`));
  await watch(name, began);
}

/** Until the face is back, or, without credits, until the plugin has given up. */
async function watch(name, began) {
  if (name !== "top-up") await until(() => faceIsAway(), 8000);
  if (name === "credits") {
    await until(() => broke, PATIENCE);
    results[name] = { silence: silenceWhileSpoken(began) };
    showOutcome("No credits, no face. The agent goes on by voice for as long as you like. Buy credits when you have heard enough.", true);
    return;
  }
  const back = await until(() => faceIsBack(began), PATIENCE);
  if (!back) {
    showOutcome("The face has not come back within a minute.");
    return;
  }
  const returned = senses.steadySince();
  const away = (returned - began) / 1000;
  const silence = senses.longestSilence(began, Math.min(returned, lastSpoken()));
  results[name] = { away, silence };
  if (name === "top-up") {
    broke = false;
    showCredits();
    showOutcome(`The face is back, ${seconds(away)} after you paid.`, true);
  } else {
    showOutcome(`The face was back after ${seconds(away)}. The longest silence until then: ${seconds(silence)}, pauses of speech included.`, true);
  }
}

let spokenUntil = 0;
const lastSpoken = () => (speaking ? performance.now() : spokenUntil);
const silenceWhileSpoken = (from) => senses.longestSilence(from, lastSpoken());

const faceIsAway = () => !pictureThere || performance.now() - senses.lastFrame > GONE;

function faceIsBack(since) {
  const steady = senses.steadySince();
  return pictureThere && avatarState === "live" && steady !== null && steady > since && performance.now() - steady > STEADY;
}

function showOutcome(text, done = false) {
  $("outcome").hidden = false;
  $("outcome").textContent = text;
  $("outcome").classList.toggle("done", done);
}

function showCredits() {
  const [title, words] = document.querySelector("[data-fault=credits]").children;
  title.textContent = broke ? "Buy credits" : "Run out of credits";
  words.textContent = broke ? "The agent asks for the avatar again." : "Runway makes no more sessions, until you buy some.";
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);

// -- every moment --------------------------------------------------------------------------------

let wasSpeaking = false;
let everSeen = false;
setInterval(() => {
  if (wasSpeaking && !speaking) spokenUntil = performance.now();
  wasSpeaking = speaking;
  const now = performance.now();
  const seen = pictureThere && now - senses.lastFrame < GONE;
  everSeen = call ? everSeen || seen : false;
  $("screen").dataset.face = seen ? "live" : everSeen ? "gone" : "none";
  $("faceless").style.setProperty("--loud", Math.min(1, Math.sqrt(senses.rms) * 2).toFixed(2));
  $("fps").textContent = call ? `${Math.round(senses.fps(2000))} /s` : "–";
}, 100);

$("start").addEventListener("click", start);
$("microphone").addEventListener("click", toggleMicrophone);
$("write").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  $("text").value = "";
  if (text && call) say(text);
});
for (const chip of $("suggestions").children) chip.addEventListener("click", () => say(chip.textContent.trim()));
for (const button of faultButtons) button.addEventListener("click", () => breakIt(button));

// For whoever tests the page.
window.demo = { senses, results };
