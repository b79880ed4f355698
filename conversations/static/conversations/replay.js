/* Shows a reply again as it came: at its own pace, faster, or at any place of it. */

class Replay {
  constructor(box, { text, points, steps }) {
    this.characters = Array.from(text);
    this.points = points;
    this.steps = steps;
    this.end = Math.max(1, points.at(-1)?.[0] ?? 0, steps.at(-1)?.[0] ?? 0);
    this.at = 0;
    this.playing = false;
    this.text = box.querySelector(".replay-text");
    this.list = box.querySelector(".replay-steps");
    this.place = box.querySelector("input");
    this.toggle = box.querySelector(".replay-toggle");
    this.speed = box.querySelector("select");
    this.clock = box.querySelector("output");
    this.place.max = this.end;
    this.place.addEventListener("input", () => this.show(Number(this.place.value)));
    this.toggle.addEventListener("click", () => (this.playing ? this.pause() : this.play()));
  }

  play() {
    if (this.at >= this.end) this.show(0);
    this.playing = true;
    this.toggle.textContent = this.toggle.dataset.pause;
    this.last = performance.now();
    requestAnimationFrame((now) => this.tick(now));
  }

  pause() {
    this.playing = false;
    this.toggle.textContent = this.toggle.dataset.play;
  }

  tick(now) {
    if (!this.playing) return;
    this.show(Math.min(this.end, this.at + (now - this.last) * Number(this.speed.value)));
    this.last = now;
    if (this.at < this.end) requestAnimationFrame((next) => this.tick(next));
    else this.pause();
  }

  show(at) {
    this.at = at;
    this.place.value = at;
    this.clock.textContent = `${(at / 1000).toFixed(1)} s / ${(this.end / 1000).toFixed(1)} s`;
    const size = this.points.findLast(([ms]) => ms <= at)?.[1] ?? 0;
    this.text.textContent = this.characters.slice(0, size).join("");
    const come = this.steps.filter(([ms]) => ms <= at);
    if (come.length !== this.list.children.length) this.list.replaceChildren(...come.map(line));
  }
}

function line([ms, words]) {
  const item = document.createElement("li");
  item.textContent = `${(ms / 1000).toFixed(1)} s · ${words}`;
  return item;
}

async function open(button) {
  button.disabled = true;
  const box = button.parentElement.querySelector(".replay");
  const answer = await fetch(button.dataset.replay).catch(() => null);
  if (!answer?.ok) {
    button.disabled = false;
    return;
  }
  box.hidden = false;
  button.hidden = true;
  const replay = new Replay(box, await answer.json());
  replay.toggle.focus();
  replay.play();
}

for (const button of document.querySelectorAll("[data-replay]")) {
  button.addEventListener("click", () => open(button));
}
