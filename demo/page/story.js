// What is told about the call, in words.

const STAGES = {
  created: "Runway has made a session",
  ready: "the session is ready",
  consumed: "its credentials are taken",
  connected: "in the room that Runway hosts",
  worker_joined: "Runway's avatar worker has joined",
  first_frame: "first picture",
  live: "picture and speech are through",
  first_speech: "the avatar was heard",
};

export const STATES = {
  starting: "the face is on its way",
  live: "live: face and voice",
  voice_only: "voice only",
  renewing: "next session on its way",
  paused: "paused",
  closed: "closed",
};

export const FAULTS = {
  crash: "the avatar has crashed",
  freeze: "the avatar is frozen",
  cap: "the session cap is hit",
  network: "the network is cut",
  credits: "no credits are left",
  "top-up": "credits are bought",
};

const CAUSES = {
  restart: "a new session is the face",
  renewal: "the next session has taken over before the cap",
  swap: "a new session is the face",
  resume: "a new session is the face",
};

const seconds = (value) => `${value.toFixed(1)} s`;

/** A line for the timeline, {text, tone}, or null for what is not worth one. */
export function line(news) {
  switch (news.event) {
    case "stage":
      return { text: STAGES[news.stage] ?? news.stage };
    case "state":
      if (news.state === "voice_only") return { text: `voice only. ${news.reason}`, tone: "bad" };
      if (news.state === "live") return { text: "live: face and voice", tone: "good" };
      return null;
    case "fault":
      if (news.phase === "begins") return { text: `You: ${FAULTS[news.name]}`, tone: "bad" };
      if (news.phase === "over" && news.name === "network") return { text: "the network is back" };
      return null;
    case "restarting":
      return { text: news.delay > 0.05 ? `another session in ${seconds(news.delay)}` : "another session is made at once" };
    case "replaced":
      return { text: `${CAUSES[news.cause]}, ${seconds(news.freeze)} without a picture` };
    case "gave_up":
      return { text: "no more sessions by itself: the agent goes on by voice", tone: "bad" };
    case "ended":
      return { text: `a session has ended (${news.how}), ${seconds(news.billed_seconds)} billed` };
    case "closed":
      return { text: "the call is over" };
    default:
      return null;
  }
}
