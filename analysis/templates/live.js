/* The page while its run is swept: what it is at, every two seconds, and the page anew when trials have ended. */

const PAGE = LIVE_VERSION;
const band = document.createElement("div");
band.className = "live";
band.setAttribute("role", "status");
document.body.prepend(band);

async function look() {
  let now;
  try {
    now = await (await fetch("live.json", { cache: "no-store" })).json();
  } catch {
    band.textContent = "ubt watch has ended: this page is no longer kept up to date";
    band.classList.add("over");
    return;
  }
  band.replaceChildren(...described(now));
  if (now.page !== PAGE) renew();
  setTimeout(look, 2000);
}

function described(now) {
  const failed = now.done?.FAILED ?? 0, running = now.running ?? [];
  const parts = [now.counted, now.work].filter(Boolean);
  if (now.per_hour) parts.push(`${now.per_hour.toFixed(1)} an hour`);
  if (now.seconds_left !== null && now.seconds_left !== undefined) parts.push(`about ${duration(now.seconds_left)} left`);
  if (now.saved_seconds) parts.push(`${duration(now.saved_seconds)} saved by sharing`);
  if (failed) parts.push(`${failed} failed`);
  const line = element("strong", { textContent: parts.join(" · ") });
  const trials = running.slice(0, 8).map(([trial, at, node, seconds]) =>
    element("li", { textContent: trialText(now, trial, at, node, seconds) }));
  const failures = (now.failures ?? []).slice(-2).map(([trial, reason]) =>
    element("li", { className: "failed", textContent: `${trial} failed: ${reason}` }));
  const share = now.total ? Math.min(1, now.ended / now.total) : 0;
  const bar = element("progress", { max: 1, value: share });
  bar.setAttribute("aria-label", "trials that have ended");
  const more = running.length > 8 ? [element("li", { textContent: `and ${running.length - 8} more` })] : [];
  return [...(now.total ? [bar] : []), line, element("ul", {}, ...trials, ...more, ...failures)];
}

/* Of a trial that was cut off nothing says how long it had run. */
function trialText(now, trial, at, node, seconds) {
  const where = node ? ` on ${node}` : "";
  return now.at_work ? `${trial} ${at}${where}, ${duration(Math.max(0, seconds))}` : `${trial} was cut off: ${at}${where}`;
}

/* A page that is being worked with is not taken away: it says that there is a newer one. */
function renew() {
  const busy = !document.querySelector(".drawer[hidden]") || document.querySelector(".tools input[type=search]")?.value;
  if (!busy) return location.reload();
  band.append(Object.assign(button("show newer results", "load the page anew"), { onclick: () => location.reload() }));
}

look();
