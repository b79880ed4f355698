// The page that is shown while the site cannot be reached; it opens what was asked for once it can.
const LONGEST_MS = 60_000;
let pause = 2_000;

async function tryAgain() {
  try {
    const { status } = await fetch(location.href, { method: "HEAD" });
    if (status < 500) return location.reload();
  } catch {
    // Not yet.
  }
  wait();
}

function wait() {
  setTimeout(tryAgain, pause * (1 + Math.random() / 2));
  pause = Math.min(2 * pause, LONGEST_MS);
}

addEventListener("online", () => location.reload());
wait();
