// Front ends that nobody here wrote, chosen by the query:
//   mode=call   Runway's AvatarCall (url: of serve; base: of Runway's API)
//   mode=core   Runway's streamTo   (the same)
//   mode=hooks  LiveKit's useVoiceAssistant, RoomAudioRenderer, VideoTrack (server, token)
// `window.seen()` says what is on the page, `window.samples` what the hooks showed each 50 ms.
import { useEffect, useRef } from 'react';
import { createRoot } from 'react-dom/client';
import {
  LiveKitRoom,
  RoomAudioRenderer,
  VideoTrack,
  useRoomContext,
  useVoiceAssistant,
} from '@livekit/components-react';
import { streamTo } from '@runwayml/avatars';
import { AvatarCall, AvatarVideo } from '@runwayml/avatars-react';

const query = Object.fromEntries(new URLSearchParams(location.search));
window.errors = [];
window.samples = [];

const connections = [];
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...given) {
    super(...given);
    connections.push(this);
  }
};

async function energy() {
  let sum = 0;
  for (const connection of connections) {
    for (const report of (await connection.getStats()).values()) {
      if (report.type === 'inbound-rtp') sum += report.totalAudioEnergy ?? 0;
    }
  }
  return sum;
}

function frames() {
  const videos = [...document.querySelectorAll('video')];
  return videos.reduce((n, video) => n + video.getVideoPlaybackQuality().totalVideoFrames, 0);
}

window.seen = async () => ({ energy: await energy(), frames: frames() });

const sound = new AudioContext();
const meters = new Map();

function level(publication) {
  const track = publication?.track?.mediaStreamTrack;
  if (!track) return 0;
  if (!meters.has(track.id)) {
    const analyser = new AnalyserNode(sound, { fftSize: 2048 });
    sound.createMediaStreamSource(new MediaStream([track])).connect(analyser);
    meters.set(track.id, analyser);
  }
  const wave = new Float32Array(2048);
  meters.get(track.id).getFloatTimeDomainData(wave);
  return Math.sqrt(wave.reduce((sum, x) => sum + x * x, 0) / wave.length);
}

function Assistant() {
  const assistant = useVoiceAssistant();
  const room = useRoomContext();
  const latest = useRef(assistant);
  latest.current = assistant;
  useEffect(() => {
    const sample = () => {
      const { state, agent, videoTrack, audioTrack } = latest.current;
      const others = [...room.remoteParticipants.values()];
      const audio = others.flatMap((p) => [...p.audioTrackPublications.values()]);
      window.samples.push({
        at: performance.timeOrigin + performance.now(),
        state,
        agent: agent?.identity ?? null,
        video: videoTrack?.participant.identity ?? null,
        videoSid: videoTrack?.publication.trackSid ?? null,
        muted: videoTrack?.publication.isMuted ?? null,
        audio: audioTrack?.participant.identity ?? null,
        audioSid: audioTrack?.publication.trackSid ?? null,
        hookLevel: level(audioTrack?.publication),
        level: Math.max(0, ...audio.map(level)),
        frames: frames(),
        workers: others.filter((p) => 'lk.publish_on_behalf' in p.attributes).length,
      });
    };
    const timer = setInterval(sample, 50);
    return () => clearInterval(timer);
  }, [room]);
  return (
    <>
      {assistant.videoTrack && <VideoTrack trackRef={assistant.videoTrack} />}
      <RoomAudioRenderer />
    </>
  );
}

function Hooks() {
  return (
    <LiveKitRoom serverUrl={query.server} token={query.token} connect audio={false} onError={failed}>
      <Assistant />
    </LiveKitRoom>
  );
}

function failed(error) {
  window.errors.push(String(error?.message ?? error));
}

function Call() {
  return (
    <AvatarCall
      avatarId="influencer"
      connectUrl={query.url}
      baseUrl={query.base}
      audio={false}
      video={false}
      onError={failed}
    >
      <AvatarVideo />
    </AvatarCall>
  );
}

async function core() {
  const body = JSON.stringify({ avatarId: 'influencer' });
  const headers = { 'Content-Type': 'application/json' };
  const answer = await fetch(query.url, { method: 'POST', headers, body });
  const target = document.createElement('video');
  target.autoplay = true;
  document.body.append(target);
  const credentials = { ...(await answer.json()), baseUrl: query.base };
  window.session = await streamTo({ credentials, target, audio: false });
}

if (query.mode === 'core') core().catch(failed);
else createRoot(document.getElementById('root')).render(query.mode === 'call' ? <Call /> : <Hooks />);
