// What reaches the visitor: how loud it is, and each picture. Measured in the browser.

const STEP = 100; // ms per sample
const KEPT = 60_000; // ms
export const LOUD = 0.008; // RMS from which on somebody speaks

/** Samples of {at, rms, frames}; `at` in ms of performance.now(). */
export class Senses {
  constructor(video) {
    this.video = video;
    this.samples = [];
    this.frameTimes = [];
    this.energy = 0; // sum of squares, for whoever asks whether there was sound at all
    this.frames = 0;
    this.rms = 0;
    this.counted = 0;
    this.watchFrames();
    setInterval(() => this.sample(), STEP);
  }

  watchFrames() {
    if (!this.video.requestVideoFrameCallback) return; // then they are counted at each sample
    const onFrame = (at) => {
      this.frame(at);
      this.video.requestVideoFrameCallback(onFrame);
    };
    this.video.requestVideoFrameCallback(onFrame);
  }

  frame(at) {
    if (this.video.videoWidth < 16) return; // a track that closes ends with a picture of 2x2
    this.frames += 1;
    this.frameTimes.push(at);
  }

  /** Must be called in answer to a click, or the browser keeps it silent. */
  wake() {
    this.context ??= new AudioContext();
    return this.context.resume();
  }

  listenTo(track) {
    this.source?.disconnect();
    this.source = this.context.createMediaStreamSource(new MediaStream([track]));
    this.analyser ??= new AnalyserNode(this.context, { fftSize: 4096 });
    this.buffer ??= new Float32Array(this.analyser.fftSize);
    this.source.connect(this.analyser);
  }

  sample() {
    const at = performance.now();
    this.rms = this.loudness();
    this.energy += this.rms ** 2;
    if (!this.video.requestVideoFrameCallback) {
      const total = this.video.getVideoPlaybackQuality?.().totalVideoFrames ?? 0;
      for (; this.counted < total; this.counted += 1) this.frame(at);
    }
    this.samples.push({ at, rms: this.rms, frames: this.fps(500, at) });
    while (this.samples[0].at < at - KEPT) this.samples.shift();
    while (this.frameTimes[0] < at - KEPT) this.frameTimes.shift();
  }

  loudness() {
    if (!this.analyser) return 0;
    this.analyser.getFloatTimeDomainData(this.buffer);
    return Math.sqrt(this.buffer.reduce((sum, value) => sum + value * value, 0) / this.buffer.length);
  }

  /** Frames per second in the last `span` ms. */
  fps(span = 1000, now = performance.now()) {
    const count = this.frameTimes.filter((at) => at > now - span && at <= now).length;
    return (count * 1000) / span;
  }

  get lastFrame() {
    return this.frameTimes.at(-1) ?? -Infinity;
  }

  /** When somebody was last heard. */
  get lastLoud() {
    return this.samples.findLast((sample) => sample.rms >= LOUD)?.at ?? -Infinity;
  }

  /** The first picture of those that have come without a gap of more than `gap` ms. */
  steadySince(gap = 500) {
    const times = this.frameTimes;
    let first = times.length - 1;
    if (first < 0 || performance.now() - times[first] > gap) return null;
    while (first > 0 && times[first] - times[first - 1] <= gap) first -= 1;
    return times[first];
  }

  /** The longest silence, in seconds, from one time to another. */
  longestSilence(from, to = performance.now()) {
    let quietSince = from;
    let longest = 0;
    for (const { at, rms } of this.samples) {
      if (at < from || at > to) continue;
      if (rms >= LOUD) quietSince = at;
      longest = Math.max(longest, at - quietSince);
    }
    return longest / 1000;
  }
}

/** Two lanes over time, the voice above and the face below, with a mark for each fault. */
export class Lanes {
  constructor(canvas, senses) {
    this.canvas = canvas;
    this.senses = senses;
    this.marks = [];
    this.span = 40_000;
    setInterval(() => this.draw(), STEP);
  }

  mark(text) {
    this.marks.push({ at: performance.now(), text });
  }

  draw() {
    const { canvas } = this;
    const scale = window.devicePixelRatio || 1;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (!width || document.hidden) return;
    if (canvas.width !== Math.round(width * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const pen = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    const colour = (name) => style.getPropertyValue(name);
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const now = performance.now();
    const x = (at) => width - 8 - ((now - at) / this.span) * (width - 16);
    const step = Math.max(1, ((width - 16) / this.span) * STEP - 0.6);
    const top = 18; // for what the marks say
    const room = (height - top - 12) / 3;
    const [upper, base] = [top + room, height - 8];
    pen.fillStyle = colour("--line");
    pen.fillRect(8, upper, width - 16, 1);
    pen.fillRect(8, base, width - 16, 1);
    for (const { at, rms, frames } of this.senses.samples) {
      if (at < now - this.span) continue;
      const loud = rms < LOUD / 2 ? 0 : Math.min(1, Math.sqrt(rms) * 2.2);
      pen.fillStyle = colour("--voice");
      if (loud) pen.fillRect(x(at), upper - loud * room, step, loud * room * 2);
      pen.fillStyle = colour("--face");
      if (frames) pen.fillRect(x(at), base - Math.min(1, frames / 30) * room, step + 0.6, Math.min(1, frames / 30) * room);
    }
    pen.font = `600 11px ${style.fontFamily}`;
    for (const { at, text } of this.marks) {
      if (at < now - this.span) continue;
      pen.fillStyle = colour("--bad");
      pen.fillRect(x(at) - 1, 4, 2, height - 12);
      const wide = pen.measureText(text).width;
      const left = x(at) + 6 + wide > width - 8 ? x(at) - 6 - wide : x(at) + 6;
      pen.fillText(text, left, 13);
    }
  }
}
