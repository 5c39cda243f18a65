// The call: livekit-client, and what the page needs of it.

const LIBRARY = "vendor/livekit-client.js";
// Where the demo found no npm. The same file, as published; the browser checks that.
const CDN = "https://cdn.jsdelivr.net/npm/livekit-client@2.23.0/dist/livekit-client.umd.js";
const INTEGRITY = "sha384-HkA7rQNo8H04l1p4zoXX1Cy+h9YoYp8LvKt4vfMFhv4KFk07UkrNwIUnyBum8Pw6";

const CHAT = "lk.chat";
const TRANSCRIPTION = "lk.transcription";
const ON_BEHALF = "lk.publish_on_behalf";

function load(source) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = source;
    script.integrity = INTEGRITY;
    script.crossOrigin = "anonymous";
    script.onload = resolve;
    script.onerror = () => reject(new Error(`could not load ${source}`));
    document.head.append(script);
  });
}

async function library() {
  if (!window.LivekitClient) await load(LIBRARY).catch(() => load(CDN));
  return window.LivekitClient;
}

/**
 * Joins the call, shows the avatar in `video` and plays it through `audio`.
 * Events: picture {there}, sound {track}, words {who, id, text, final}, link {state}, over {}.
 */
export class Call extends EventTarget {
  constructor(video, audio) {
    super();
    this.video = video;
    this.audio = audio;
    this.room = null;
  }

  tell(name, detail = {}) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  async join({ url, token }) {
    const { Room, RoomEvent } = await library();
    const room = (this.room = new Room());
    room
      .on(RoomEvent.TrackSubscribed, (track, publication, participant) => this.attach(track, publication, participant))
      .on(RoomEvent.TrackMuted, (publication, participant) => this.muted(publication, participant, true))
      .on(RoomEvent.TrackUnmuted, (publication, participant) => this.muted(publication, participant, false))
      .on(RoomEvent.SignalReconnecting, () => this.tell("link", { state: "cut" }))
      .on(RoomEvent.Reconnecting, () => this.tell("link", { state: "cut" }))
      .on(RoomEvent.Reconnected, () => this.tell("link", { state: "connected" }))
      .on(RoomEvent.Disconnected, () => this.room === room && this.tell("over"));
    room.registerTextStreamHandler(TRANSCRIPTION, (reader, from) => this.read(reader, from.identity));
    // Everything is on this machine, so nobody outside is asked for an address.
    await room.connect(url, token, { rtcConfig: { iceServers: [] } });
    this.tell("link", { state: "connected" });
  }

  isAvatar(participant) {
    return Boolean(participant.attributes[ON_BEHALF]);
  }

  attach(track, publication, participant) {
    if (track.kind === "video" && this.isAvatar(participant)) {
      track.attach(this.video);
      this.tell("picture", { there: !publication.isMuted });
    } else if (track.kind === "audio") {
      track.attach(this.audio);
      this.tell("sound", { track: track.mediaStreamTrack });
    }
  }

  muted(publication, participant, isMuted) {
    if (publication.kind === "video" && this.isAvatar(participant)) this.tell("picture", { there: !isMuted });
  }

  async read(reader, from) {
    if (from === this.room.localParticipant.identity) return;
    const id = reader.info.attributes?.["lk.segment_id"] ?? reader.info.id;
    let text = "";
    try {
      for await (const piece of reader) {
        text += piece;
        this.tell("words", { id, text, final: false });
      }
    } catch {
      // The call was ended in mid-sentence: what there is stays.
    }
    this.tell("words", { id, text, final: true });
  }

  async say(text) {
    await this.room.localParticipant.sendText(text, { topic: CHAT });
  }

  async setMicrophone(on) {
    await this.room.localParticipant.setMicrophoneEnabled(on);
  }

  /** Ask the agent to show the avatar again. */
  async showFace() {
    const agents = [...this.room.remoteParticipants.values()].filter((one) => one.isAgent && !this.isAvatar(one));
    for (const agent of agents) {
      await this.room.localParticipant.performRpc({
        destinationIdentity: agent.identity, method: "show_face", payload: "", responseTimeout: 40_000,
      });
    }
  }

  leave() {
    const room = this.room;
    this.room = null;
    return room?.disconnect();
  }
}
